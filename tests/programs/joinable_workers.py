"""Workers as a subclass of Process, fed by a JoinableQueue; tasks are objects of the program's own."""

from multiprocessing import JoinableQueue, Process, Queue


class Task:
    def __init__(self, a, b):
        self.a, self.b = a, b

    def __call__(self):
        return f"{self.a} * {self.b} = {self.a * self.b}"


class Worker(Process):
    def __init__(self, tasks, results):
        super().__init__()
        self.tasks = tasks
        self.results = results
        self.done = 0

    def run(self):
        while True:
            task = self.tasks.get()
            if task is None:
                self.tasks.task_done()
                break
            self.results.put(task())
            self.tasks.task_done()


if __name__ == "__main__":
    tasks, results = JoinableQueue(), Queue()
    workers = [Worker(tasks, results) for _ in range(3)]
    for worker in workers:
        worker.start()
    for number in range(10):
        tasks.put(Task(number, number + 1))
    for _ in workers:
        tasks.put(None)
    tasks.join()
    for line in sorted(results.get() for _ in range(10)):
        print(line)
    for worker in workers:
        worker.join()
    print([worker.exitcode for worker in workers], [worker.done for worker in workers])
