from shop import total

print("total", total())
