"""Pool.map and starmap: count primes in ranges."""

from multiprocessing import Pool, cpu_count


def is_prime(n):
    if n < 2:
        return False
    return all(n % divisor for divisor in range(2, int(n**0.5) + 1))


def primes_between(low, high):
    return sum(map(is_prime, range(low, high)))


if __name__ == "__main__":
    with Pool(processes=4) as pool:
        print("primes below 50:", [n for n, prime in enumerate(pool.map(is_prime, range(50))) if prime])
        print("in each thousand:", pool.starmap(primes_between, [(k * 1000, (k + 1) * 1000) for k in range(8)]))
    with Pool(cpu_count()) as pool:
        print("squares:", pool.starmap(pow, [(x, 2) for x in range(10)]))
    with Pool() as pool:
        print("longest word:", max(pool.map(len, "to be or not to be that is the question".split(), chunksize=4)))
