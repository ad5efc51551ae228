import os

print(os.environ["DATABASE_URL"], os.environ.get("LR"), os.environ["API_TOKEN"])
