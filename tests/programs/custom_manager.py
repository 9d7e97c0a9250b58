"""A manager of one's own: objects of a class live in its process, and all others call them."""

from multiprocessing import Process
from multiprocessing.managers import BaseManager


class Account:
    def __init__(self, balance=0):
        self._balance = balance

    def deposit(self, amount):
        self._balance += amount
        return self._balance

    def balance(self):
        return self._balance

    def withdraw(self, amount):
        if amount > self._balance:
            raise ValueError(f"only {self._balance} left")
        self._balance -= amount


class Bank(BaseManager):
    pass


Bank.register("Account", Account)


def pay_in(account, amounts):
    for amount in amounts:
        account.deposit(amount)


if __name__ == "__main__":
    with Bank() as bank:
        account = bank.Account(100)
        processes = [Process(target=pay_in, args=(account, [amount] * 3)) for amount in (1, 10)]
        for process in processes:
            process.start()
            process.join()
        print("balance:", account.balance())
        try:
            account.withdraw(1000)
        except ValueError as error:
            print("refused:", error)
        account.withdraw(33)
        print("balance:", account.balance())
