"Somebody else's checkpoints: whatever a pickle or a zip tries, nothing runs, and the answer is one line or the right numbers."
import json, marshal, os, pickle, pickletools, resource, struct, subprocess, sys, time, types, zipfile
from collections import OrderedDict
from dataclasses import asdict
from enum import Enum
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st

import lewm_tts.convert as C
from lewm_tts.core import UserError, make_config
from lewm_tts.model import LeWMTTS, load_model
from lewm_tts.training import Run, accelerator, averaged

torch.set_num_threads(1)


# a small assembler: bytes that push one value each

def text(s): b = s.encode('utf-8', 'surrogatepass'); return b'X' + struct.pack('<I', len(b)) + b
def num(n): return b'\x8a\x09' + n.to_bytes(9, 'little', signed=True)
def raw(b): return b'B' + struct.pack('<I', len(b)) + b
def tup(*xs): return b'(' + b''.join(xs) + b't'
def lst(*xs): return b'](' + b''.join(xs) + b'e'
def dic(*kv): return b'}(' + b''.join(kv) + b'u'
def glob(full): return b'c' + '\n'.join(full.rsplit(' ' if ' ' in full else '.', 1)).encode() + b'\n'
def call(full, *xs): return glob(full) + tup(*xs) + b'R'
def ints(xs): return xs if isinstance(xs, bytes) else tup(*map(num, xs))
def storage(key='0', n=2, kind='torch.FloatStorage'): return tup(text('storage'), glob(kind), text(key), text('cpu'), num(n)) + b'Q'
def rebuild(offset=0, shape=(2,), stride=(1,), over=None, more=b'', how='torch._utils._rebuild_tensor_v2'):
    return call(how, over or storage(), offset if isinstance(offset, bytes) else num(offset), ints(shape), ints(stride), b'\x89', call('collections.OrderedDict'), more)
def program(value, proto=4): return b'\x80' + bytes([proto]) + value + b'.'
def table(value, key='w'): return program(b'}' + text(key) + value + b's')


def pack(path, prog, data=None, more=(), order='little', top='archive/'):
    "A torch zip file around a program."
    with zipfile.ZipFile(path, 'w') as z:
        for k, v in [('data.pkl', prog), ('byteorder', order), ('version', '3\n')]: z.writestr(top + k, v)
        for k, v in ({'0': bytes(8)} if data is None else data).items(): z.writestr(f'{top}data/{k}', v)
        for k, v in more: z.writestr(k, v)
    return path


def memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def refusal(f, *words):
    "The one line that f says no with, within a second and without much memory."
    mb, t = memory(), time.process_time()
    with pytest.raises(UserError) as e: f()
    said, took = str(e.value), time.process_time() - t
    assert took < 1.5 and memory() - mb < 300, f'{took:.1f} s, {memory() - mb} MB'        # a second, and a bit for a machine that is shared
    assert said.isprintable() and len(said) < 1000, said
    for w in words: assert w in said, said
    return said


# programs that run something: each makes a file when a naive reader loads it

def firing(folder):
    "name -> program"
    canary = str(folder / 'canary')
    c, py, sh, touch = text(canary), text(f'open({canary!r}, "w").close()'), text(f'touch {canary}'), lst(text('touch'), text(canary))
    inner = program(call('os.system', sh))
    (folder / 'evil.py').write_text(f'open({canary!r}, "w").close()\n'); (folder / 'evil.npy').write_bytes(inner); pack(folder / 'evil.pt', inner)
    (folder / 'hubconf.py').write_text(f'dependencies = []\ndef model(): open({canary!r}, "w").close()\n')
    code = marshal.dumps(compile(f'open({canary!r}, "w").close()', 'x', 'exec'))
    module = call('importlib.import_module', text('os'))
    out = {
        'open': call('builtins.open', c, text('w')), 'os.system': call('os.system', sh), 'posix.system': call('posix.system', sh), 'subprocess.Popen': call('subprocess.Popen', touch),
        'subprocess.check_output': call('subprocess.check_output', touch), 'eval': call('builtins.eval', py), 'exec': call('builtins.exec', py),
        '__import__ and getattr': call('builtins.getattr', call('builtins.__import__', text('os')), text('system')) + tup(sh) + b'R',
        'import_module': call('builtins.getattr', module, text('system')) + tup(sh) + b'R', 'runpy': call('runpy.run_path', text(str(folder / 'evil.py'))),
        'runpy code': call('runpy._run_code', py, b'}'), 'pickle in a pickle': call('pickle.loads', raw(inner)), 'numpy.load': call('numpy.load', text(str(folder / 'evil.npy')), b'N', b'\x88'),
        'marshal and FunctionType': call('types.FunctionType', call('marshal.loads', raw(code)), b'}') + b')R',
        'codecs': call('builtins.exec', call('_codecs.decode', raw(f'open({canary!r}, "w")'.encode()), text('utf-8'))),
        'attrgetter': call('operator.attrgetter', text('system')) + tup(module) + b'R' + tup(sh) + b'R', 'methodcaller': call('operator.methodcaller', text('system'), sh) + tup(module) + b'R',
        'partial': call('functools.partial', glob('os.system'), sh) + b')R', 'map': call('builtins.list', call('builtins.map', glob('os.system'), lst(sh))),
        'reduce': call('functools.reduce', glob('builtins.getattr'), lst(module, text('system'))) + tup(sh) + b'R', 'timeit': call('timeit.timeit', py, text('pass'), glob('time.time'), num(1)),
        'cProfile': call('cProfile.run', py), 'code': call('code InteractiveInterpreter.runcode', call('code.InteractiveInterpreter'), py),
        'torch.load inside': call('torch.storage._load_from_bytes', raw((folder / 'evil.pt').read_bytes())), 'torch.hub': call('torch.hub._load_local', text(str(folder)), text('model')),
        'torch gadget': call('torch.utils.collect_env.run', touch), 'dotted GLOBAL': call('posixpath os.system', sh),
        'dotted STACK_GLOBAL': text('pathlib') + text('Path.touch') + b'\x93' + tup(call('pathlib.Path', c)) + b'R', 'STACK_GLOBAL': text('os') + text('system') + b'\x93' + tup(sh) + b'R',
        'INST': b'(' + sh + b'ios\nsystem\n', 'OBJ': b'(' + glob('subprocess.Popen') + touch + b'o', 'memo': glob('os.system') + b'q\x050h\x05' + tup(sh) + b'R',
        'thrown away': b'(' + call('os.system', sh) + b'1N', 'BUILD with __setstate__': call('functools.partial', glob('builtins.print')) + tup(glob('os.system'), tup(sh), b'}', b'N') + b'b)R',
        'as a key': b'}' + call('os.system', sh) + b'Ns', 'EXT1': b'\x82\x07' + tup(sh) + b'R', 'Python 2': call('__builtin__.eval', py),
    }
    return canary, {k: program(v, 2 if k == 'Python 2' else 4) for k, v in out.items()}


NAIVE = '''
import copyreg, os, pickle, sys, time
import torch
copyreg.add_extension('os', 'system', 7)
canary, *files = sys.argv[1:]
for f in files:
    try: pickle.loads(open(f, 'rb').read())
    except Exception as e: print(f, repr(e))
    end = time.time() + 2
    while not os.path.exists(canary) and time.time() < end: time.sleep(.01)      # Popen waits for nobody
    print(f, 'FIRED' if os.path.exists(canary) else 'silent'); os.path.exists(canary) and os.remove(canary)
'''


def test_nothing_runs(tmp_path):
    "The programs are real: a naive reader runs every one. Ours refuses each, keeps each inert, and looks at each, and nothing happens."
    canary, programs = firing(tmp_path)
    assert len(programs) >= 35
    files = {k: tmp_path / f'{i}.pkl' for i, k in enumerate(programs)}
    for k, f in files.items(): f.write_bytes(programs[k])
    r = subprocess.run([sys.executable, '-c', NAIVE, canary, *map(str, files.values())], capture_output=True, text=True, timeout=120)
    for k, f in files.items(): assert f'{f} FIRED' in r.stdout, (k, r.stdout, r.stderr)
    import copyreg; copyreg.add_extension('os', 'system', 7)
    try:
        for k, prog in programs.items():
            f = pack(tmp_path / 'x.pt', prog)
            refusal(lambda f=f: C.convert(f, tmp_path / 'out'), str(f), 'byte')
            try: C.read_checkpoint(f, stubs=True); C.convert(f, tmp_path / 'out', stubs=True)
            except UserError as e: assert str(e).isprintable()
            lines = '\n'.join(C.inspect(f)) + '\n'.join(C.inspect(files[k]))
            assert 'refuse' in lines and 'WANTS' in lines, (k, lines)
            for fix in (False, True): refusal(lambda f=files[k], fix=fix: C.read_checkpoint(f, stubs=fix), 'bare pickle')
            assert not os.path.exists(canary), k
    finally: copyreg.remove_extension('os', 'system', 7)
    assert not (tmp_path / 'out').exists()


def test_a_name_and_its_byte(tmp_path):
    said = refusal(lambda: C.convert(pack(tmp_path / 'x.pt', table(call('posix.system', text('x')))), tmp_path / 'out'), 'posix.system', 'x.pt', 'safetensors')
    assert f"byte {table(call('posix.system', text('x'))).index(b'cposix')} " in said
    said = refusal(lambda: C.convert(pack(tmp_path / 'x.pt', table(call('author.nets.Hparams', text('x')))), tmp_path / 'out'), 'author.nets.Hparams', 'stubs=True')
    evil = refusal(lambda: C.convert(pack(tmp_path / 'x.pt', table(text('a\x1b[31m\nb') + text('c\u202e') + b'\x93')), tmp_path / 'out'))
    assert '\x1b' not in evil and '\\u001b' in evil


# programs that call nothing, and yet

def many(n, value): return b'}(' + b''.join(num(i) + value for i in range(n)) + b'u'
V3 = 'torch._utils._rebuild_tensor_v3'
DEEP, LONG = 100_000, 30_000
HOSTILE = {
    # tensors that are not there
    'stride out of the storage': rebuild(0, (1000,), (1,)), 'a long stride': rebuild(0, (2,), (1 << 40,)), 'offset out of the storage': rebuild(10**6), 'offset by one': rebuild(1),
    'negative size': rebuild(0, (-1,), (1,)), 'negative stride': rebuild(1, (2,), (-1,)), 'negative offset': rebuild(-1, (1,)), 'a size that overflows 64 bits': rebuild(0, (1 << 40, 1 << 40), (0, 0)),
    'size of a bool': rebuild(0, tup(b'\x88'), (1,)), 'size of a float': rebuild(0, tup(b'G' + struct.pack('>d', 1.)), (1,)), 'text for a size': rebuild(0, text('2'), (1,)), 'fewer strides than sizes': rebuild(0, (1, 1), (1,)),
    'a thousand dimensions': rebuild(0, (1,) * 1000, (1,) * 1000), 'an offset that is a list': rebuild(lst(), (1,)), 'eight bytes that unfold to terabytes': rebuild(0, (10**12,), (0,)),
    'no storage': rebuild(over=num(3)), 'a tensor for a storage': rebuild(over=rebuild()), 'parameter without a tensor': call('torch._utils._rebuild_parameter', text('x'), b'\x88', call('collections.OrderedDict')),
    'parameter of a name': call('torch._utils._rebuild_parameter', glob('torch.FloatStorage'), b'\x88', b'N'), 'too few arguments': call('torch._utils._rebuild_tensor_v2', storage()),
    'too many arguments': call('torch._utils._rebuild_tensor_v2', *[storage()] * 12), 'v3 of a larger type': rebuild(0, (2,), (1,), None, glob('torch.float64'), V3), 'v3 of no type': rebuild(0, (2,), (1,), None, text('float32'), V3),
    'a storage that lies': rebuild(0, (2,), (1,), storage(n=3)), 'a storage of another width': rebuild(0, (1,), (1,), storage(n=2, kind='torch.DoubleStorage')), 'a storage of nothing known': rebuild(over=storage(kind='torch.EvilStorage')),
    'a negative storage': rebuild(over=storage(n=-1)), 'a storage key that is a path': rebuild(over=storage('../../etc/passwd')), 'an absolute storage key': rebuild(over=storage('/etc/passwd')),
    'a storage that is not there': rebuild(over=storage('7')), 'a persistent id that is a path': text('/etc/passwd') + b'Q', 'a persistent id in text': b'P/etc/passwd\n', 'a persistent module': tup(text('module'), text('a'), text('b'), text('c'), text('d')) + b'Q',
    'a storage made by a call': call('torch.FloatStorage', num(1 << 40)), 'a sparse tensor': call('torch._utils._rebuild_sparse_tensor', b'N', b'N'), 'a conjugated tensor': rebuild(more=dic(text('conj'), b'\x88')),
    # things done to things
    'BUILD on a function': glob('torch._utils._rebuild_tensor_v2') + tup(b'N', dic(text('__defaults__'), tup())) + b'b', 'BUILD on a module': glob('torch os') + dic(text('sep'), text('!')) + b'b',
    'BUILD on a dictionary': b'}' + dic(text('items'), b'N') + b'b', 'BUILD on a tensor': rebuild() + dic(text('data'), b'N') + b'b', 'SETITEM on sys.modules': glob('sys.modules') + text('json') + b'Ns', 'SETITEM on a list': b']NNs',
    'APPEND to a tensor': rebuild() + b'Na', 'APPEND to a tuple': b')Na', 'ADDITEMS on a list': b'](N\x90', 'REDUCE of a dictionary': b'})R', 'REDUCE on a list': glob('collections.OrderedDict') + b']R', 'REDUCE of a tensor': rebuild() + b')R',
    'NEWOBJ': glob('collections.OrderedDict') + b')\x81', 'NEWOBJ_EX': glob('subprocess.Popen') + b')}\x92', 'OrderedDict of no pairs': call('collections.OrderedDict', lst(num(1))), 'a codec': call('_codecs.encode', text('x'), text('zip')),
    'a type called': call('torch.float32'), 'a global as a key': b'}' + glob('torch.float32') + b'Ns',
    # names
    'STACK_GLOBAL of a number': num(1) + text('system') + b'\x93', 'STACK_GLOBAL of a list': b']]\x93', 'a dotted name': text('torch') + text('_utils._rebuild_tensor_v2') + b'\x93', 'an empty name': text('') + text('') + b'\x93',
    'a name of a megabyte': text('a' * 10**6) + text('b') + b'\x93', 'EXT1': b'\x82\x01', 'EXT2': b'\x83\x01\x00', 'EXT4': b'\x84\x01\x00\x00\x00', 'buffers': b'\x97\x98', 'bytearray': b'\x96' + struct.pack('<Q', 2) + b'ab',
    # sizes
    'nested lists as a weight': b']' * DEEP + b'a' * (DEEP - 1), 'nested tuples': b'N' + b'\x85' * DEEP, 'nested dictionaries': b'}' + (b'N}' * DEEP) + b's' * DEEP, 'open marks': b'(' * DEEP, 'a nested tuple as a key': b'}N' + b'\x85' * DEEP + b'Ns',
    'nested in a set': b'\x8f(N' + b'\x85' * DEEP + b'\x90', 'keys of one hash': b'}(' + b''.join(b'\x8a\x0a' + (k * (2**61 - 1)).to_bytes(10, 'little') + b'N' for k in range(LONG)) + b'u',
    'long equal keys': b'}' + text('a' * 10**6) + b'q\x01Ns' + text('a' * 10**6) + b'q\x020' + b'h\x01Nsh\x02Ns' * 1000, 'a list as a key': b'}]Ns', 'an odd dictionary': b'}(N' + b'u',
    'a list copied a thousand times': lst(*[tup(num(1), num(2))] * 1200) + b'q\x010' + (glob('collections.OrderedDict') + b'h\x01\x85R0') * 1000 + b'N', 'text encoded a thousand times': text('a' * 10**6) + b'q\x010' + (glob('_codecs.encode') + b'h\x01' + text('latin1') + b'\x86R0') * 1000 + b'N',
    'a number of 10 MB': b'\x8b' + struct.pack('<i', 10**7) + b'\x01' * 10**7, 'a negative length': b'\x8b' + struct.pack('<i', -5), 'bytes of 2**62': b'\x8e' + struct.pack('<Q', 1 << 62), 'text of 2**63': b'\x8d' + struct.pack('<Q', 1 << 63),
    'text of 4 GB': b'X\xff\xff\xff\xff', 'a number in a million digits': b'I' + b'9' * 10**6 + b'\n', 'long digits': b'L' + b'9' * 4000 + b'L\n', 'opcodes without end': b'N0' * (C.MAX['ops'] // 2 + 1), 'another protocol': b'\x80\xff',
    'slots of one hash': b'N' + b''.join(b'p%d\n' % (k * (2**61 - 1)) for k in range(LONG)), 'a long shape a thousand times': lst(*[num(1)] * 20_000) + b'q\x01' + storage() + b'q\x0200'
        + (glob('torch._utils._rebuild_tensor') + b'(h\x02' + num(0) + b'h\x01h\x01tR0') * 1000 + b'N', 'a slot never filled': b'h\x07', 'a negative slot': b'g-1\n', 'nothing to take': b'0' * 9, 'nothing to close': b't', 'an unknown opcode': b'\xff', 'broken text': b'X\x02\0\0\0\xff\xff', 'half an opcode': b'X\x05\0\0',
}


# what the line must say: each is stopped by the guard that is meant for it, not by luck
REASONS = {'stride out of': 'would read number 999 of', 'long stride': 'would read number', 'fewer strides': 'fit together', 'negative size': 'from 0 on', 'negative stride': 'from 0 on', 'negative offset': 'from 0 on', 'offset by one': 'would read number 2 of', 'offset out': 'would read number', 'eight bytes': 'would unfold', 'overflows': 'would unfold', 'a storage that lies': 'should hold 12', 'as a key': 'key of type', 'keys of one hash': 'far too long', 'long equal keys': 'far too long',
           'copied a thousand': 'a lot of work', 'encoded a thousand': 'a lot of work', '10 MB': '79,999,993 bits', 'long digits': 'bits', 'a million digits': 'digits', 'opcodes without end': '1,000,000 opcodes', 'a name of a megabyte': '1,000,001 letters',
           'another protocol': 'protocol 255', 'EXT': 'opcode EXT', 'sparse': 'to_dense', 'nested lists': 'no tensors', 'nested tuples': 'no tensors', 'nested dictionaries': 'no tensors', 'nested in a set': 'key of type tuple',
           'slot never': 'never filled', 'slots of one': 'does not exist', 'a negative slot': 'never filled', 'of 2**': 'damaged', '4 GB': 'damaged', 'parameter': 'no tensor but', 'no storage': 'made of int', 'arguments': 'wrong arguments', 'dotted': 'which no table', 'called': 'calls torch.float32', 'by a call': 'calls torch.FloatStorage'}


@pytest.mark.parametrize('trick', HOSTILE)
def test_hostile_programs(tmp_path, trick):
    f = pack(tmp_path / 'x.pt', table(HOSTILE[trick]))
    said = refusal(lambda: C.convert(f, tmp_path / 'out'), str(f))
    assert all(v in said for k, v in REASONS.items() if k in trick), said
    for look in (dict(stubs=True), dict(look=True)):
        t = time.process_time()
        try: C.read_checkpoint(f, **look)
        except UserError as e: assert str(e).isprintable()
        assert time.process_time() - t < 1.5
    try: lines = C.inspect(f)
    except UserError as e: lines = [str(e)]
    assert all(x.isprintable() for x in lines) and len(lines) < 60
    assert not (tmp_path / 'out').exists(), 'a refusal writes nothing'


def test_memo_slots_cost_nothing(tmp_path):
    "Slot four billion is a dictionary entry, not four billion pointers."
    mb = memory(); f = pack(tmp_path / 'x.pt', table(b'Nr\xff\xff\xff\xff' + b'0' + rebuild()))
    C.convert(f, tmp_path / 'out'); assert memory() - mb < 100


def test_billion_laughs(tmp_path):
    "A hundred doublings are a hundred pairs in memory; written out they would be 2**100. What cannot be written is left out."
    laugh = text('ha') + b'2\x86' * 100
    f = pack(tmp_path / 'x.pt', program(dic(text('state_dict'), b'}' + text('w') + rebuild() + b's', text('joke'), laugh)))
    t = time.process_time(); r = C.convert(f, tmp_path / 'out'); C.inspect(f)
    assert time.process_time() - t < 1 and r.tensors == 1 and (tmp_path / 'out/config.json').stat().st_size < 10**6
    loop = b'}q\x01' + text('state_dict') + b'}' + text('w') + rebuild() + b's' + b's' + text('self') + b'h\x01s' + text('list') + b']q\x02h\x02as'
    r = C.convert(pack(tmp_path / 'x.pt', program(loop)), tmp_path / 'out'); assert (r.tensors, r.key) == (1, 'state_dict')


def test_a_wide_graph_is_not_unfolded(tmp_path):
    "Ten thousand mentions of one dictionary of twenty thousand entries are two hundred million when written out."
    wide = many(20_000, b'N') + b'q\x01'
    tensors = b'}(' + b''.join(num(i) + rebuild() for i in range(500)) + b'uq\x02'
    sets = b'\x8f(' + b''.join(map(num, range(20_000))) + b'\x90q\x03'
    prog = program(dic(text('a'), wide, text('b'), tensors, text('c'), sets, text('w'), rebuild(), text('z'), lst(*[b'h\x01h\x02h\x03'] * 10_000)))
    f = pack(tmp_path / 'x.pt', prog); t = time.process_time(); C.convert(f, tmp_path / 'out', '.'); C.inspect(f)
    assert time.process_time() - t < 3 and (tmp_path / 'out/config.json').stat().st_size < 10**6


def test_many_tables_and_many_objects(tmp_path):
    "What costs the square of its number is found out here."
    part = glob('torch._utils._rebuild_tensor_v2') + b'(' + storage() + num(0) + tup(num(2)) + tup(num(1)) + b'\x89NtR' + b'q\x07'
    tables = b'}' + text('first') + b'}' + text('w') + part + b'ss' + b'(' + b''.join(text(f't{i}') + b'}' + text('w') + b'h\x07s' for i in range(20_000)) + b'u'
    f = pack(tmp_path / 'x.pt', program(tables)); refusal(lambda: C.convert(f, tmp_path / 'out'), 'several tables', 't1')
    t = time.process_time(); r = C.convert(f, tmp_path / 'out', 't7'); assert r.tensors == 1 and len(str(r)) < 5000 and time.process_time() - t < 3
    nested = b'}' + (text('d') + b'}') * 3000 + text('w') + part + b's' * 3001
    refusal(lambda: C.convert(pack(f, program(nested)), tmp_path / 'out'), 'no tensors')
    wide = many(20_000, b'N') + b'q\x010' + dic(*[text(f'k{i}') + b'N' for i in range(20_000)]) + b'q\x02'
    objects = b'0' + glob('author.Thing') + b'q\x030](' + b'h\x03)\x81h\x02b' * 20_000 + b'e'
    for mode in (dict(stubs=True), dict(look=True)):
        t = time.process_time(); C.parts_of(C.read_checkpoint(pack(f, program(wide + objects)), **mode).value); C.plain(C.read_checkpoint(f, **mode).value); assert time.process_time() - t < 3
    refusal(lambda: C.convert(pack(f, table(rebuild(), 'model.' * 1500)), tmp_path / 'out'), 'is called')


def test_strange_names_of_tensors(tmp_path):
    for name in ('__metadata__', 'a\nb', 'x' * 2000, '\ud800', '\u202e'): refusal(lambda n=name: C.convert(pack(tmp_path / 'x.pt', table(rebuild(), n)), tmp_path / 'out'))
    assert C.convert(pack(tmp_path / 'x.pt', table(rebuild(), 'größe/../w')), tmp_path / 'out').tensors == 1


def test_a_hostile_config(tmp_path):
    for cfg in ('{"layers": "many"}', '[' * 10**5, 'null', '{"width": 1e999}', '{"nobody": 1}'):
        refusal(lambda c=cfg: C.convert(pack(tmp_path / 'x.pt', program(dic(text('model'), b'}', text('cfg'), text(c), text('avg'), b'}' + text('w') + rebuild() + b's'))), tmp_path / 'out'), 'config')


# zip files

def bend(path, find, put, back=0):
    "Overwrite bytes at the last place where `find` stands."
    b = bytearray(path.read_bytes()); i = b.rindex(find) + back; b[i:i + len(put)] = put
    path.write_bytes(b)
    return path


def test_hostile_zips(tmp_path):
    good, f = table(rebuild()), tmp_path / 'x.pt'
    no = lambda p, *words: refusal(lambda: C.convert(p, tmp_path / 'out'), str(p), *words)
    for name in ('../evil', '/evil', 'a/../../evil', 'C:\\evil', 'a\nb'): no(pack(f, good, more=[(name, b'x')]), 'elsewhere')
    with pytest.warns(UserWarning): pack(f, good, more=[('archive/data/0', bytes(8))])
    no(f, 'two entries')
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('archive/data.pkl', table(rebuild(0, (1 << 26,), (1,), storage(n=1 << 26)))); z.writestr('archive/data/0', bytes(1 << 28))
    assert f.stat().st_size < 300_000; no(f, 'compressed')
    pack(f, good); b = f.read_bytes(); at = b.rindex(b'PK\1\2', 0, b.rindex(b'archive/data/0'))      # its entry in the table of contents
    for put, back, word in [(b'\1', 8, 'encrypted'), (struct.pack('<II', 1 << 30, 1 << 30), 20, 'neighbour'), (bytes(4), 42, 'neighbour'), (b'\xff\xff\xff\x7f', 42, 'damaged'), (b'\x63\0', 10, 'compressed')]:
        c = bytearray(b); c[at + back:at + back + len(put)] = put; f.write_bytes(c); no(f, word)
    no(bend(pack(f, good, {'0': b'12345678'}), b'12345678', b'123x5678'), 'not what was written')
    no(pack(f, good, order='big'), 'big-endian')
    no(bend(pack(f, good), b'PK\5\6', struct.pack('<I', 1 << 31), 12))
    for n in (1, 30, len(b) // 2, len(b) - 30, len(b) - 1): f.write_bytes(b[:n]); no(f)
    f.write_bytes(b + bytes(70_000)); no(f, 'damaged')
    with zipfile.ZipFile(f, 'w') as z:
        for i in range(60_000): z.writestr(f'archive/data/some_long_name_of_an_entry_{i}', b'')
    no(f, 'table of contents')
    no(pack(f, good, more=[('archive/constants.pkl', b'N.'), ('archive/code/x.py', b'')]), 'TorchScript')
    no(pack(f, good, more=[('other/data.pkl', good)]))
    pack(f, good, top='folder/', more=[('folder/', b''), ('folder/data/', b'')]); assert C.convert(f, tmp_path / 'out').tensors == 1       # zipped again by hand
    with zipfile.ZipFile(f, 'w') as z: z.writestr('word/document.xml', '<a/>')
    no(f, 'no torch checkpoint')
    no(pack(f, good[:-1] + b'N.'), 'middle'); assert C.convert(pack(f, good, top=''), tmp_path / 'out').tensors == 1


# what people really have

def save(path, x, **kw): torch.save(x, path, **kw); return path


def same(a, b): return a.dtype == b.dtype and a.shape == b.shape and a.contiguous().reshape(-1).view(torch.uint8).equal(b.contiguous().reshape(-1).view(torch.uint8)) if a.numel() else a.shape == b.shape


def read(path, **kw):
    c = C.read_checkpoint(path, **kw); (t,) = C.parts_of(c.value).values()
    return c.tensors(t)


KINDS = [{}, dict(pickle_protocol=3), dict(pickle_protocol=5), dict(_use_new_zipfile_serialization=False)]


@pytest.mark.parametrize('kw', KINDS)
def test_every_kind_of_tensor(tmp_path, kw):
    g = torch.Generator().manual_seed(0); w = torch.randn(6, 5, generator=g)
    types_ = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
    state = {str(t)[6:]: (w * 9).abs().to(t) for t in types_}
    state |= {'w': w, 'w.t': w.t(), 'slice': w[1:5:2, 1:], 'expanded': torch.ones(1).expand(7), 'scalar': torch.tensor(3.), 'empty': torch.empty(0, 3), 'nothing': torch.empty(0), 'parameter': torch.nn.Parameter(w.clone()), 'large': torch.arange(99999.)}
    got = read(save(tmp_path / 'x.pt', state, **kw))
    assert list(got) == list(state)
    for k in state: assert same(got[k], state[k].detach()) and got[k].is_contiguous(), k
    assert len({x.data_ptr() for x in got.values() if x.numel()}) == sum(x.numel() > 0 for x in got.values()), 'each has memory of its own'
    young = {'float8_e4m3fn', 'float8_e5m2', 'uint16', 'uint32', 'uint64'}         # torch itself cannot read them back from its old format
    told = torch.load(save(tmp_path / 'y.pt', {k: v for k, v in state.items() if k not in young}, **kw), weights_only=False)
    assert all(same(got[k], v.detach()) for k, v in told.items())


def test_truth_bytes_are_truth(tmp_path):
    "A bool of 7 is neither True nor False to a C compiler."
    f = pack(tmp_path / 'x.pt', table(rebuild(0, (8,), (1,), storage(n=8, kind='torch.BoolStorage'))), {'0': bytes([0, 1, 7, 255, 0, 2, 0, 1])})
    assert read(f)['w'].view(torch.uint8).tolist() == [0, 1, 1, 1, 0, 1, 0, 1]


def test_nestings(tmp_path):
    net = torch.nn.Linear(2, 3); sd, f, out = net.state_dict(), tmp_path / 'x.pt', tmp_path / 'out'
    from safetensors.torch import load_file
    def has(x, key=None, names=('weight', 'bias'), **kw):
        r = C.convert(save(f, x), out, key, **kw); got = load_file(out / 'model.safetensors')
        assert set(got) == set(names), got.keys()
        return r
    has(sd); has({'state_dict': sd, 'epoch': 3}); has({'model': {'module': sd}}); has([sd]); has(OrderedDict(ema=sd, best=torch.tensor(.5)))
    for p in ('module.', 'model.', '_orig_mod.', 'module._orig_mod.', 'model.module.'):
        r = has({'state_dict': {p + k: v for k, v in sd.items()}}); assert r.stripped == p and p in str(r)
    has({'model.' + k: v for k, v in sd.items()}, names=('model.weight', 'model.bias'), strip=False)
    has({**{'model.' + k: v for k, v in sd.items()}, 'loss.w': sd['bias']}, names=('model.weight', 'model.bias', 'loss.w'))
    both = {'model': {k: v.clone() for k, v in sd.items()}, 'ema': sd}
    refusal(lambda: C.convert(save(f, both), out), 'model (2 tensors, 9 numbers)', 'ema', 'key=')
    r = has(both, 'ema'); assert r.left_out == ['model (2 tensors)']
    has(both, '.', ('model.weight', 'model.bias', 'ema.weight', 'ema.bias')); refusal(lambda: C.convert(f, out, 'avg'), "no table 'avg'", 'model, ema')
    has({'net': {'enc': both['model'], 'dec': sd}}, 'net', ('enc.weight', 'enc.bias', 'dec.weight', 'dec.bias')); has({'net': {'enc': both['model'], 'dec': sd}}, 'net.dec')
    refusal(lambda: C.convert(save(f, {'a': {'b.c': sd['bias'], 'b': {'c': both['ema']['bias']}}}), out, 'a'), 'two tensors have one name')
    opt = torch.optim.AdamW(net.parameters()); net(torch.ones(1, 2)).sum().backward(); opt.step()
    r = has({'state_dict': sd, 'optimizer': opt.state_dict(), 'lr': 1e-3, 'nan': float('nan'), 'tags': {'b', 'a'}})
    assert r.left_out == ['optimizer (an optimiser)'] and json.loads((out / 'config.json').read_text()) == {'found': {'lr': 1e-3, 'nan': 'nan', 'tags': ['a', 'b']}}
    f = tmp_path / 'epoch=3 loss:0.1 größe..x.ckpt'; has(sd); has(torch.zeros(3), names=('tensor',)); refusal(lambda: C.convert(save(f, {'a': 1}), out), 'no tensors')


def test_shared_and_bent(tmp_path):
    w = torch.randn(4, 3)
    r = C.convert(save(tmp_path / 'x.pt', {'a': w, 'b': w, 'c': w.t(), 'd': w[1]}), tmp_path / 'out')
    assert any('4 tensors shared memory' in n for n in r.notes) and any('1 tensors were views' in n for n in r.notes), r.notes
    got = read(tmp_path / 'x.pt')
    assert same(got['a'], w) and same(got['b'], w) and same(got['c'], w.t()) and same(got['d'], w[1])
    got['a'][0] = 9; assert same(got['b'], w)


def test_refused_with_a_cure(tmp_path):
    f = tmp_path / 'x.pt'
    refusal(lambda: C.convert(save(f, {'w': torch.eye(3).to_sparse()}), tmp_path / 'out'), 'a sparse tensor', 'to_dense')
    refusal(lambda: C.convert(save(f, {'w': torch.quantize_per_tensor(torch.ones(3), .1, 0, torch.qint8)}), tmp_path / 'out'), 'quantized', 'dequantize')
    refusal(lambda: C.convert(save(f, {'w': torch.empty(3, device='meta')}), tmp_path / 'out'), 'meta')
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), f); refusal(lambda: C.convert(f, tmp_path / 'out'), 'TorchScript', 'state_dict')
    f.write_bytes(pickle.dumps({'w': torch.zeros(2)})); refusal(lambda: C.convert(f, tmp_path / 'out'), 'bare pickle')


@pytest.fixture
def lightning(tmp_path):
    "What Lightning writes: hyperparameters that are an object of a package that is not here any more."
    mod = types.ModuleType('gone_author'); sub = types.ModuleType('gone_author.settings'); sys.modules.update({'gone_author': mod, 'gone_author.settings': sub})
    class AttributeDict(dict): pass
    class Optim:
        def __init__(self, lr): self.lr, self.betas = lr, (.9, .98)
        def __setstate__(self, s): raise AssertionError('nobody calls this')
    class Act(Enum): RELU = 1
    for c in (AttributeDict, Optim, Act): c.__module__, c.__qualname__ = 'gone_author.settings', c.__name__; setattr(sub, c.__name__, c)
    net = torch.nn.Linear(2, 3)
    hp = AttributeDict(width=7, optim=Optim(1e-3), act=Act.RELU, path=Path('a/b'), kind=torch.nn.ReLU, dtype=torch.float16, fn=torch.nn.functional.relu); hp.extra = 'kept'
    ckpt = {'epoch': 2, 'pytorch-lightning_version': '2.5', 'state_dict': OrderedDict(('model.' + k, v) for k, v in net.state_dict().items()), 'hyper_parameters': hp, 'optimizer_states': [torch.optim.SGD(net.parameters(), .1).state_dict()], 'net': net}
    files = [save(tmp_path / f'l{i}.ckpt', ckpt, **kw) for i, kw in enumerate(KINDS)]
    del sys.modules['gone_author'], sys.modules['gone_author.settings']
    return files, net


def test_classes_that_are_not_here(lightning, tmp_path):
    from safetensors.torch import load_file
    for f in lightning[0]:
        with pytest.raises((pickle.UnpicklingError, ModuleNotFoundError)): torch.load(f, weights_only=True)
        refusal(lambda f=f: C.convert(f, tmp_path / 'out'), 'gone_author.settings', 'stubs=True')
        assert any('stubs=True' in x for x in C.inspect(f))
        r = C.convert(f, tmp_path / 'out', 'state_dict', stubs=True)
        assert {k: v.tolist() for k, v in load_file(tmp_path / 'out/model.safetensors').items()} == {k: v.tolist() for k, v in lightning[1].state_dict().items()}
        hp = json.loads((tmp_path / 'out/config.json').read_text())['found']['hyper_parameters']
        assert hp['class'] == 'gone_author.settings.AttributeDict' and hp['items']['width'] == 7 and hp['state'] == {'extra': 'kept'} and hp['items']['kind'] == 'torch.nn.modules.activation.ReLU' and hp['items']['fn'] == 'torch.nn.functional.relu'
        assert hp['items']['optim'] == {'class': 'gone_author.settings.Optim', 'state': {'lr': 1e-3, 'betas': [.9, .98]}} or hp['items']['optim']['state']['lr'] == 1e-3
        assert any('optimizer_states' in x for x in r.left_out) and any('gone_author.settings.Optim (never run)' == x for x in r.left_out), r.left_out
        C.convert(f, tmp_path / 'out', 'net', stubs=True)                                    # a module pickled whole is a table too
        assert set(load_file(tmp_path / 'out/model.safetensors')) == {'weight', 'bias'}


def test_stubs_still_say_no(tmp_path):
    for full in ('os.system', 'builtins.eval', 'subprocess.Popen', 'torch.load', 'torch.hub.load', 'numpy.load', '__main__.f', 'builtins.getattr', 'author.nets.evil', 'torch.float32'):
        refusal(lambda f=full: C.read_checkpoint(pack(tmp_path / 'x.pt', table(call(f, text('x')))), stubs=True), full)
    for full in ('os.system', 'builtins.eval', 'sys.modules'): refusal(lambda f=full: C.read_checkpoint(pack(tmp_path / 'x.pt', table(glob(f))), stubs=True), full)


def test_our_own(tmp_path):
    "A checkpoint of the trainer becomes a folder that `load_model` opens, with the averaged weights."
    run = Run(make_config('mini', n_speakers=2), accelerator('no'))
    for p in run.raw.parameters(): p.data.add_(.01)
    run.avg.update(run.raw); run.step = 3; run.save(tmp_path / 'last.pt')
    r = C.convert(tmp_path / 'last.pt', tmp_path / 'voice'); a, b = averaged(run), load_model(tmp_path / 'voice')
    assert r.key == 'avg' and a.cfg == b.cfg and a.state_dict().keys() == b.state_dict().keys() and all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert 'opt (an optimiser)' in r.left_out and any('model' in x for x in r.left_out)
    C.convert(tmp_path / 'last.pt', tmp_path / 'raw', 'model'); assert torch.equal(load_model(tmp_path / 'raw').mel_mean, run.raw.mel_mean)
    assert any(not torch.equal(v, a.state_dict()[k]) for k, v in load_model(tmp_path / 'raw').state_dict().items())
    text_ = '\n'.join(C.inspect(tmp_path / 'last.pt')); assert 'training checkpoint of this project, step 3' in text_ and 'refuse' not in text_
    m = LeWMTTS(make_config('mini')); torch.save(m.state_dict(), tmp_path / 'bare.pth')            # bare weights, and a config from elsewhere
    C.convert(tmp_path / 'bare.pth', tmp_path / 'bare', config=asdict(m.cfg))
    assert all(torch.equal(v, m.state_dict()[k]) for k, v in load_model(tmp_path / 'bare').state_dict().items())


def test_writing_fails_cleanly(tmp_path):
    f = save(tmp_path / 'x.pt', {'w': torch.zeros(2)}); (tmp_path / 'file').write_text('x')
    refusal(lambda: C.convert(f, tmp_path / 'file'), 'file'); refusal(lambda: C.convert(f, tmp_path / 'out', config=tmp_path / 'none.json'), 'none.json')
    refusal(lambda: C.convert(save(f, {'w': torch.zeros(2, dtype=torch.complex128)}), tmp_path / 'out'), 'safetensors cannot keep')
    assert not list((tmp_path / 'out').glob('*'))


# inspect

def test_no_file(tmp_path):
    (tmp_path / 'empty').touch(); os.mkfifo(tmp_path / 'fifo'); (tmp_path / 'folder').mkdir(); (tmp_path / 'loop').symlink_to(tmp_path / 'loop'); (tmp_path / 'gone').symlink_to(tmp_path / 'nowhere')
    for name, word in dict(empty='empty', fifo='no regular file', loop='cannot read', gone='cannot read', missing='cannot read', folder='no voice').items():
        refusal(lambda n=name: C.inspect(tmp_path / n), name, word); refusal(lambda n=name: C.convert(tmp_path / n, tmp_path / 'out'), name)
    refusal(lambda: C.inspect('/dev/zero'), 'no regular file'); refusal(lambda: C.inspect('a\0b')); refusal(lambda: C.inspect(tmp_path / ('x' * 300)))
    if os.geteuid():
        f = save(tmp_path / 'x.pt', {}); f.chmod(0); refusal(lambda: C.inspect(f), 'permission')
    (tmp_path / 'folder/config.json').write_text('{"width": "wide"}'); refusal(lambda: C.inspect(tmp_path / 'folder'), 'config.json')


def test_unreadable(tmp_path, monkeypatch):
    f = save(tmp_path / 'x.pt', {})
    def denied(*a, **k): raise PermissionError(13, 'Permission denied', str(f))
    monkeypatch.setattr('builtins.open', denied)
    refusal(lambda: C.inspect(f), 'x.pt', 'Permission denied')


def test_foreign_files(tmp_path):
    import gzip, numpy as np, soundfile as sf
    sf.write(tmp_path / 'a.wav', np.zeros(2400), 24000); sf.write(tmp_path / 'a.flac', np.zeros(2400), 24000); sf.write(tmp_path / 'a.ogg', np.zeros(2400), 24000)
    np.save(tmp_path / 'a.npy', np.zeros(3)); np.savez(tmp_path / 'a.npz', a=np.zeros(3)); (tmp_path / 'a.gz').write_bytes(gzip.compress(b'x'))
    for name, b in dict(html=b'<!DOCTYPE html><html>', lfs=b'version https://git-lfs.github.com/spec/v1\noid', png=b'\x89PNG\r\n', gguf=b'GGUF\3\0', text=b'Dear Anna,', noise=bytes(range(128, 256)), h5=b'\x89HDF\r\n').items(): (tmp_path / f'a.{name}').write_bytes(b)
    for name, word in dict(wav='sound', flac='sound', ogg='sound', npy='numpy', gz='gzip', html='web page', lfs='git lfs pull', png='picture', gguf='GGUF', text='text', noise='nothing', h5='HDF5').items():
        line, = C.inspect(tmp_path / f'a.{name}'); assert word in line and f'a.{name}' in line
        refusal(lambda n=name: C.convert(tmp_path / f'a.{n}', tmp_path / 'out'), word)
    refusal(lambda: C.inspect(tmp_path / 'a.npz'), 'no torch checkpoint')


def test_safetensors_headers(tmp_path):
    from safetensors.torch import save_file
    f = tmp_path / 'x.safetensors'; save_file({'enc.w': torch.zeros(2, 3), 'dec.b': torch.zeros(4).bfloat16(), 'dec.e': torch.zeros(0)}, f, {'by': 'a\nb'})
    lines = C.inspect(f); assert '3 tensors, 10 parameters' in lines[0] and any('BF16' in x for x in lines) and all(x.isprintable() for x in lines)
    good = f.read_bytes(); n = int.from_bytes(good[:8], 'little')
    def bad(head, body=bytes(24), size=None): f.write_bytes((len(head) if size is None else size).to_bytes(8, 'little') + head + body); refusal(lambda: C.inspect(f), 'damaged')
    w = lambda **kw: json.dumps({'w': dict(dtype='F32', shape=[2, 3], data_offsets=[0, 24]) | kw}).encode()
    f.write_bytes(len(w()).to_bytes(8, 'little') + w() + bytes(24)); assert '6 parameters' in C.inspect(f)[0]
    for kw in (dict(dtype='F99'), dict(dtype=None), dict(dtype=[]), dict(shape=[2, 4]), dict(shape=[-2, -3]), dict(shape=[True]), dict(shape='ab'), dict(shape=None), dict(data_offsets=[0, 25]), dict(data_offsets=[1, 25]), dict(data_offsets=[24, 0]),
               dict(data_offsets=[0]), dict(data_offsets=[0, 24, 9]), dict(data_offsets=[0., 24.]), dict(data_offsets=[0, 10**30]), dict(shape=[10**30])): bad(w(**kw))
    for head in (b'{"w": [', b'[]', b'"x"', b'{"w": 1}', b'{"a":{},"a":{}}', b'{"\xff": 1}', b'{"w":' * 10**5, b'{"' + b'9' * 10**6): bad(head)
    bad(w(), bytes(23)); bad(w(), bytes(25)); bad(w(), size=1 << 39); bad(w(), size=len(w()) + 25)
    two = json.dumps({k: dict(dtype='F32', shape=[3], data_offsets=[a, a + 12]) for k, a in (('a', 0), ('b', 8))}).encode(); bad(two, bytes(20))
    for k in (9, n, n + 8, len(good) - 1): f.write_bytes(good[:k]); refusal(lambda: C.inspect(f), 'damaged')


def test_folders_and_graphs(tmp_path):
    from lewm_tts.core import voices_dir
    from lewm_tts.model import save_model
    save_model(LeWMTTS(make_config('mini')), tmp_path / 'v'); lines = C.inspect(tmp_path / 'v'); assert 'preset mini' in lines[0] and any('pred' in x for x in lines)
    if (voices_dir() / 'toy-en').is_dir(): assert any('vocoder.safetensors' in x for x in C.inspect(voices_dir() / 'toy-en'))
    onnx = pytest.importorskip('onnx')
    from onnx import TensorProto, helper
    g = helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [helper.make_tensor_value_info('x', TensorProto.FLOAT, ['n', 3])], [helper.make_tensor_value_info('y', TensorProto.FLOAT, ['n', 3])])
    f = tmp_path / 'x.onnx'; onnx.save(helper.make_model(g), f); lines = C.inspect(f)
    assert '1 operation,' in lines[0] and 'Relu 1' in lines[1] and 'in x (n, 3) float' in lines[2]
    f.write_bytes(f.read_bytes()[:-7]); refusal(lambda: C.inspect(f), 'damaged')


def test_our_small_format(tmp_path):
    f = tmp_path / 'x.lq40'; f.write_bytes(b'LQ40' + struct.pack('<I', 1 << 31) + b'{}'); refusal(lambda: C.inspect(f), 'x.lq40')
    refusal(lambda: C.convert(f, tmp_path / 'out'), 'LQ40')


def test_code_before_the_break(tmp_path):
    "A pickle that breaks off after a call has made the call: `inspect` says so. One that only breaks off is damaged."
    f = tmp_path / 'x.pkl'; f.write_bytes(b'\x80\x04' + call('os.system', text('true')) + b'X\xff')
    lines = C.inspect(f); assert any('WANTS os.system' in x for x in lines) and any('damaged' in x for x in lines)
    f.write_bytes(pickle.dumps(list(range(99)))[:-9]); refusal(lambda: C.inspect(f), 'damaged')
    lines = C.inspect(pack(tmp_path / 'x.pt', program(call('os.system', text('true')))[:-1])); assert any('WANTS os.system' in x for x in lines)
    torch.save({'w': torch.zeros(9)}, f, _use_new_zipfile_serialization=False); b = f.read_bytes()
    for n in range(2, len(b), 7): f.write_bytes(b[:n]); refusal(lambda: C.inspect(f), 'x.pkl')


# mutations

@pytest.fixture(scope='module')
def base(tmp_path_factory):
    d = tmp_path_factory.mktemp('base'); w = torch.arange(6.).view(2, 3)
    x = {'state_dict': OrderedDict(a=w, b=w.t(), c=torch.nn.Parameter(torch.ones(2).bfloat16())), 'epoch': 3, 'lr': .1, 'tags': ['x', {1: None}], 'size': torch.Size([2])}
    files = [save(d / f'{i}.pt', x, **kw) for i, kw in enumerate(KINDS)]
    progs = [zipfile.ZipFile(f).read(f'{f.stem}/data.pkl') for f in files[:3]]
    datas = [{n.split('/')[-1]: z.read(n) for n in z.namelist() if '/data/' in n} for z in map(zipfile.ZipFile, files[:3])]
    return d, [f.read_bytes() for f in files], progs, datas


def mutate(b, edits, cut):
    b = bytearray(b)
    for how, at, byte in edits:
        at %= len(b)
        if how == 0: b[at] = byte
        elif how == 1: b[at] ^= 1 << byte % 8
        elif how == 2: b[at:at] = bytes([byte])
        elif len(b) > 1: del b[at]
    return bytes(b[:len(b) - cut % len(b)] if cut else b)


def survives(f):
    "Numbers or one line; never another exception."
    for go in (lambda: C.convert(f, f.parent / 'out'), lambda: C.convert(f, f.parent / 'out', stubs=True), lambda: C.inspect(f)):
        try: go()
        except UserError as e: assert str(e).isprintable() and len(str(e)) < 1500


EDITS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6), st.sampled_from([*b'().0123RQbcjhqXKJ}]etuas', *range(256)])), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(which=st.integers(0, 3), edits=EDITS, cut=st.sampled_from([0] * 5 + [1, 30, 200]))
def test_mutated_files(base, which, edits, cut):
    d, files, _, _ = base
    f = d / 'm.pt'; f.write_bytes(mutate(files[which], edits, cut)); survives(f)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(which=st.integers(0, 2), edits=EDITS, cut=st.sampled_from([0] * 9 + [1]))
def test_mutated_programs(base, which, edits, cut):
    d, _, progs, datas = base
    f = pack(d / 'm.pt', mutate(progs[which], edits, cut), datas[which]); survives(f)


OPS = [o.code.encode('latin1') for o in pickletools.opcodes if o.arg is None]


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(parts=st.lists(st.one_of(st.sampled_from(OPS), st.sampled_from([num(0), num(2), text('a'), rebuild(), storage(), b'h\x01', b'q\x01', glob('collections.OrderedDict'), glob('a.B'), glob('os.system'), b'}', b')', b']', b'R', b'b', b's'])), max_size=25))
def test_programs_of_chance(base, parts):
    survives(pack(base[0] / 'm.pt', program(b''.join(parts))))


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(noise=st.binary(max_size=300))
def test_noise(base, noise):
    f = base[0] / 'm.bin'
    for head in (b'', b'PK\3\4', b'\x80\x04', struct.pack('<Q', 20) + b'{"', b'\x08\x07\x12'): f.write_bytes(head + noise); survives(f)
