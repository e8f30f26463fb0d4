import subprocess,sys,time,os
sys.path.insert(0,"/src/tests/compiled")
from compiled_launch import *
from pathlib import Path
import tempfile
top=Path(tempfile.mkdtemp())
t=make_small_image(top/"t", Path("/lab/images/debian-root"))
(top/"s").mkdir(); site=make_site(top/"s",t)
N=int(sys.argv[1])
t0=time.time()
ps=[subprocess.Popen([runner(),*site.argv(["cat","/opt/lab/file"])],env=site.environment,stdout=subprocess.PIPE,stderr=subprocess.PIPE) for _ in range(N)]
print("spawned",time.time()-t0)
outs=[p.communicate() for p in ps]
print("ok",sum(o==(b"from the host\n",b"") for o in outs),[o for o in outs if o!=(b"from the host\n",b"")][:3])
print("seconds",time.time()-t0,"compilations",len(site.stages()), len(site.plans()))
