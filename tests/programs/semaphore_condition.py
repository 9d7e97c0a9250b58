"""A Semaphore lets two in at a time; a Condition hands over what is made."""

from multiprocessing import BoundedSemaphore, Condition, Process, Value


def visit(room, inside, most):
    for _ in range(5):
        with room:
            with inside.get_lock():
                inside.value += 1
                with most.get_lock():
                    most.value = max(most.value, inside.value)
            with inside.get_lock():
                inside.value -= 1


def bake(condition, loaves):
    for _ in range(10):
        with condition:
            loaves.value += 1
            condition.notify()


def eat(condition, loaves, eaten):
    while True:
        with condition:
            if not condition.wait_for(lambda: loaves.value > 0 or eaten.value == 10, timeout=60):
                return
            if eaten.value == 10:
                condition.notify_all()
                return
            loaves.value -= 1
            eaten.value += 1
            if eaten.value == 10:
                condition.notify_all()


if __name__ == "__main__":
    room, inside, most = BoundedSemaphore(2), Value("i", 0), Value("i", 0)
    visitors = [Process(target=visit, args=(room, inside, most)) for _ in range(4)]
    condition, loaves, eaten = Condition(), Value("i", 0), Value("i", 0)
    people = [Process(target=eat, args=(condition, loaves, eaten)) for _ in range(2)]
    people.append(Process(target=bake, args=(condition, loaves)))
    for process in visitors + people:
        process.start()
    for process in visitors + people:
        process.join()
    print("never more than two:", 1 <= most.value <= 2, "inside now:", inside.value)
    print("loaves left:", loaves.value, "eaten:", eaten.value)
    print({process.exitcode for process in visitors + people})
