"""Cast a run that mounts an output of another run."""

from orchestrator import Mount, RunSpec, connect

with connect() as client:
    first = client.runs.cast(RunSpec(command="seq 10 > numbers.txt")).number
    client.runs.wait(str(first))

    mount = Mount(f"runs/{first}/numbers.txt", "in/numbers.txt")
    second = client.runs.cast(RunSpec(command="tail -n 2 in/numbers.txt", mounts=(mount,))).number
    print(client.runs.wait(str(second)).state)
    print(client.logs.get(str(second)).read().decode(), end="")
    print("mounted by the second run:", client.runs.get(str(first)).mounted_by == [second])

# Output:
# complete
# 9
# 10
# mounted by the second run: True
