# Run it with `river -n 4 foo.py`: there are VMs then, and names that it does not import.
def foo(x, y):
    return x + y


vrlist = connect(2)
for r in vrlist:
    inject(r, foo)
results = forkjoin(vrlist, foo, [[1, 2], [3, 4]])
print(results)

hlist = [fork(vr, foo, 1, 2) for vr in vrlist]
results = [join(h) for h in hlist]
print(results)

hlist = forkall(vrlist, foo, 1, 2)
results = joinall(hlist)
print(results)
