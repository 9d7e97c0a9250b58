machines = connect(4)
chunks = [range(i, i + 250) for i in range(0, 1000, 250)]
results = forkjoin(machines, sum, chunks)
s = sum(results)
print(s)
