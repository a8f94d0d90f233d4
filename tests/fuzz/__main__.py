"""Run random programs on real clusters and on fakes, and compare: `python -m fuzz --help`."""
import sys, time, trio
from fuzz.program import generate
from fuzz.driver import run
from triocoro.testing import FakeCluster, NetnsCluster, check

async def one(kind, p):
    t=time.monotonic(); c0=time.process_time()
    async with kind(nodes=p.nodes) as c:
        o = await run(p, c)
    v = check(o.history, options=c.options)
    print(p.seed, kind.__name__, f"{time.monotonic()-t:.2f} s, cpu {time.process_time()-c0:.2f}", len(o.history), "entries", o.error, f"{len(v)} violations", flush=True)
    for x in v[:2]: print(x)
    return o
async def main():
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        p = generate(seed, nodes=int(sys.argv[3]), length=30)
        await one(FakeCluster, p)
if __name__ == "__main__":
    trio.run(main)
