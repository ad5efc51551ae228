import idna
from shop import name

print(idna.encode(f"{name()}.example"))
