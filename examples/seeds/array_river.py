# Run it with `river -n 4 array_river.py`: there are VMs then, and names that it does not import.
machines = connect(4)
chunks = [range(i, i + 250) for i in range(0, 1000, 250)]
results = forkjoin(machines, sum, chunks)
s = sum(results)
print(s)
