# Run it with `trickle -n 4 simpsonsrule.py`: there are VMs then, and names that it does not import.
import math


def simpsonsrule(func, a, b, TOL=1e-10):
    h = b - a
    old2 = old = h * (func(a) + func(b)) / 2.0
    count = 0
    while True:
        h = h / 2.0
        x, sum = a + h, 0
        while x < b:
            sum = sum + func(x)
            x = x + 2 * h
        new = old / 2.0 + h * sum
        new2 = (4 * new - old) / 3.0
        if abs(new2 - old2) < TOL * (1 + abs(old2)):
            return new2
        old = new
        old2 = new2
        count = count + 1


f = math.sin
vrlist = connect(4)
for r in vrlist:
    inject(r, simpsonsrule)
chunks = [(f, 0, 10), (f, 10, 20), (f, 20, 30), (f, 30, 40)]
results = forkjoin(vrlist, simpsonsrule, chunks)
print("%.12g" % sum(results))
print("%.12g" % simpsonsrule(f, 0, 40))
