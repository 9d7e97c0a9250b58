"""Pipes: ask a process, wait for whichever of many answers first, see the end of each."""

from multiprocessing import Pipe, Process
from multiprocessing.connection import wait


def answer(connection):
    for question in iter(connection.recv, None):
        connection.send(sum(question))
    connection.close()


def report(connection, name):
    for number in range(3):
        connection.send((name, number))
    connection.send_bytes(b"the end of " + name.encode())
    connection.close()


if __name__ == "__main__":
    ours, theirs = Pipe()
    process = Process(target=answer, args=(theirs,))
    process.start()
    theirs.close()
    for question in ([1, 2, 3], range(10), (0.5, 0.25)):
        ours.send(question)
        print(list(question), "->", ours.recv())
    ours.send(None)
    process.join()
    print("exit code:", process.exitcode)

    readers, processes, heard = [], [], []
    for name in ("amazon", "nile"):
        reader, writer = Pipe(duplex=False)
        readers.append(reader)
        processes.append(Process(target=report, args=(writer, name)))
        processes[-1].start()
        writer.close()
    counts = dict.fromkeys(readers, 0)
    while counts:
        for reader in wait(list(counts)):
            try:
                heard.append(reader.recv() if counts[reader] < 3 else reader.recv_bytes().decode())
                counts[reader] += 1
            except EOFError:
                reader.close()
                del counts[reader]
    for process in processes:
        process.join()
    print(sorted(map(str, heard)))
