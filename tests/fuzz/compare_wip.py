
import sys, time, trio, json
sys.path.insert(0,"/tmp/w6/tests")
from fuzz.program import generate
from fuzz.driver import run
from triocoro.testing import FakeCluster, NetnsCluster, check
import triocoro
async def one(kind, p):
    t=time.monotonic()
    try:
        async with kind(nodes=p.nodes) as c:
            o = await run(p, c)
    except BaseException as e:
        return e, None, time.monotonic()-t
    return o, check(o.history, options=c.options), time.monotonic()-t
async def main(seeds, nodes, length):
    for seed in seeds:
        p=generate(seed,nodes=nodes,length=length)
        f,fv,ft=await one(FakeCluster,p)
        if isinstance(f, BaseException):
            import traceback; traceback.print_exception(f); print("FAKE FAILED", seed); continue
        if len(sys.argv)>5:
            print(seed,"fake only",round(ft,2),"violations",len(fv)); [print(v) for v in fv[:2]]; continue
        r,rv,rt=await one(NetnsCluster,p)
        if isinstance(r, BaseException):
            import traceback; traceback.print_exception(r); print("REAL FAILED", seed); continue
        diffs=[(a["step"],p.steps[a["step"]],k,a.get(k),b.get(k)) for a,b in zip(f.observations,r.observations) for k in sorted(a.keys()|b.keys()) if a.get(k)!=b.get(k)]
        print(seed, f"fake {ft:.2f} s real {rt:.2f} s diffs {len(diffs)} violations fake {len(fv)} real {len(rv)}", flush=True)
        for d in diffs[:4]: print("   ", str(d)[:900])
        for v in (fv+rv)[:2]: print(v)
trio.run(main, range(int(sys.argv[1]),int(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4]))
