from model import average

with open("data/numbers.txt") as file:
    print("average", average([float(line) for line in file]))
