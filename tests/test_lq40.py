"LQ40 from outside: a second reader that shares no code, round trips, damaged files of every kind, and what a disk can do. The long fuzz is tests/fuzz_lq40.py."
import json, math, os, random, struct, threading, tracemalloc, zlib
from pathlib import Path

import fuzz_lq40 as fuzz
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from lewm_tts import lq40 as lq
from lewm_tts.core import UserError
from lewm_tts.quantize import Packed, Small, pack, prune, unpack

torch.set_num_threads(1)
QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def small(parts, **kw): return Small(parts, kw.get('config', {}), kw.get('vocoder', {}), kw.get('card', {}), kw.get('scheme', 's'))


def to_bytes(s, coded=False): return b''.join(lq.lq40_bytes(s, coded))


def same(a, b):
    if isinstance(a, Packed): return isinstance(b, Packed) and a[2:] == b[2:] and all(x.shape == y.shape and x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(a[:2], b[:2], strict=True))
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


# a second reader, from data/LQ40.md alone: struct, zlib, json and plain lists

class Second:
    def __init__(self, b): self.b, self.at = b, 0

    def get(self, form):
        v = struct.unpack_from('<' + form, self.b, self.at); self.at += struct.calcsize('<' + form)
        return v

    def u32(self): return self.get('I')[0]
    def vec(self, kind='f'): return list(self.get(f'{self.u32()}{kind}'))

    def q4(self):
        rows, columns, blocks, stored = self.get('4I'); marks = self.get(f'{-(-blocks//8)}B'); w = []
        assert blocks == rows*math.ceil(columns/32)
        for k in range(blocks):
            if marks[k//8] >> k % 8 & 1:
                scale, *pairs = self.get('f16B'); stored -= 1
                for x in pairs: w += [((x & 15) - 8)*scale, ((x >> 4) - 8)*scale]
            else: w += [0.]*32
        assert stored == 0
        return [w[r*32*(blocks//rows) + c] for r in range(rows) for c in range(columns)]

    def i8(self):
        rows, columns, n = self.get('3I'); q = self.get(f'{n}b'); assert self.u32() == rows
        scale = self.get(f'{rows}f')
        return [q[c*rows + r]*scale[r] for r in range(rows) for c in range(columns)]

    def coded(self, block):
        rows, columns, n = self.get('3I'); scale = self.get(f'{rows*n}e'); q = zlib.decompress(bytes(self.get(f'{self.u32()}B')))
        return [struct.unpack_from('b', q, r*columns + c)[0]*scale[r*n + (c//block if block else 0)] for r in range(rows) for c in range(columns)]

    def header(self):
        assert self.get('4s') == (b'LQ40',)
        return json.loads(bytes(self.get(f'{self.u32()}B')))


def near(want, got): return len(got) == want.numel() and torch.allclose(want.flatten(), torch.tensor(got), rtol=1e-6, atol=0)


@pytest.mark.parametrize('coded', [False, True])
def test_a_second_reader_understands_a_voice(coded):
    torch.manual_seed(0); w = torch.randn(3, 5, 13); w[1, :] = 0
    parts = {'model.a': torch.randn(3, 2), 'model.b': torch.randn(5).half(), 'model.c': pack(w), 'model.d': pack(torch.randn(4, 7), 8, 0), 'vocoder.e': pack(torch.randn(3, 9), 3, 4), 'vocoder.f': pack(torch.randn(2, 3), 5, 0)}
    s = small(parts, config={'preset': 'tiny'}, card={'who': 'Zoë'}); b = to_bytes(s, coded); r = Second(b); h = r.header()
    assert (h['mode'], h['config'], h['card'], h['scheme']) == ('lewm-tts-1', {'preset': 'tiny'}, {'who': 'Zoë'}, 's')
    for (name, kind, shape, _, block), (k, x) in zip(h['tensors'], parts.items(), strict=True):
        want = x.float() if not isinstance(x, Packed) else unpack(x._replace(scale=x.scale.half().float()) if kind == 'coded' else x)
        got = r.q4() if kind == 'q4' else r.i8() if kind == 'i8' else r.coded(block) if kind == 'coded' else r.vec({'f32': 'f', 'f16': 'e'}[kind])
        assert name == k and tuple(shape) == tuple(x.shape) and near(want, got), name
    assert {t[1] for t in h['tensors']} == ({'f32', 'f16', 'coded'} if coded else {'f32', 'f16', 'q4', 'i8', 'coded'})
    assert r.u32() == zlib.crc32(b[:-4]) and r.at == len(b)


@pytest.mark.parametrize('mode', lq.MODES)
def test_a_second_reader_understands_a_world_model(mode, tmp_path):
    t = lq.lewm_stand_in(fuzz.SIZES, 5); b = lq.write_lewm(t, tmp_path/'w', mode, fuzz.SIZES).read_bytes(); r = Second(b)
    assert b[8:].startswith(b'{"action_dim":2,"channels":1,"encoder_heads":1') and r.header() == {**fuzz.SIZES, 'mode': mode}
    order = [f'enc.{k}' for k in ('patch.w', 'patch.b', 'cls', 'pos')]
    order += [f'enc.0.{k}' for k in 'attn_norm.w attn_norm.b q.w q.b k.w k.b v.w v.b o.w o.b ffn_norm.w ffn_norm.b up.w up.b down.w down.b'.split()] + ['enc.norm.w', 'enc.norm.b', 'pred.pos']
    order += [f'pred.0.{k}' for k in 'adaln.w adaln.b qkv.w out.w out.b attn_norm.w attn_norm.b mlp_norm.w mlp_norm.b up.w up.b down.w down.b'.split()] + ['pred.norm.w', 'pred.norm.b']
    order += 'action.conv.w action.conv.b action.0.w action.0.b action.1.w action.1.b'.split()
    order += [x for h in ('projector', 'pred_proj') for x in (2, f'{h}.0.w', f'{h}.0.b', f'{h}.1.w', f'{h}.1.b')] + ['input_proj.w', 'input_proj.b', 'cond_proj.w', 'cond_proj.b']
    matrices = [f'pred.0.{k}.w' for k in ('adaln', 'qkv', 'out', 'up', 'down')]
    for name in order:
        if name == 2: assert r.u32() == 2; continue
        x = t[name]
        if name in matrices: w, got = unpack(pack(prune(x, {'wanda20-q4': .2, 'wanda40-q4': .4}.get(mode, 0)))), r.q4()
        elif mode == 'full' and name.startswith('enc.0.') and name.endswith('.w') and 'norm' not in name: w, got = unpack(pack(x, 8, 0)), r.i8()
        else: w, got = x, r.vec()
        assert near(w, got), name
    assert r.at == len(b)


# what goes in comes out

def weight(draw, dims):
    shape = draw(st.lists(st.integers(1, 6), min_size=dims[0], max_size=dims[1]))
    if shape: shape[-1] *= draw(st.sampled_from((1, 1, 17)))
    g = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    return torch.randn(shape, generator=g)*10.**draw(st.integers(-3, 2))*(torch.rand(shape, generator=g) >= draw(st.sampled_from((0., .5, .97, 1.))))


@st.composite
def voices(draw):
    parts = {}
    for i in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(('f32', 'f16', 'q4', 'i8', 'any')))
        w = weight(draw, (0, 4) if kind in ('f32', 'f16') else (2, 4))
        parts[f'model.{i}.{kind}'] = w if kind == 'f32' else w.half() if kind == 'f16' else pack(w) if kind == 'q4' else pack(w, 8, 0) if kind == 'i8' else pack(w, draw(st.integers(2, 8)), draw(st.sampled_from((0, 1, 5, 32, 64))))
    text = st.text(st.characters(codec='utf-8'), max_size=12); values = st.recursive(st.none() | st.booleans() | st.integers(-2**40, 2**40) | st.floats(allow_nan=False, allow_infinity=False) | text, lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3), max_leaves=8)
    return Small(parts, draw(st.dictionaries(text, values, max_size=3)), draw(st.dictionaries(text, values, max_size=2)), draw(st.dictionaries(text, values, max_size=2)), draw(text))


@QUICK
@given(voices(), st.booleans())
def test_what_goes_in_comes_out(s, coded):
    b = to_bytes(s, coded); t = lq.load_lq40(b)
    assert (t.config, t.vocoder, t.card, t.scheme) == (s.config, s.vocoder, s.card, s.scheme) and list(t.parts) == list(s.parts)
    kinds = {r[0]: r[1] for r in Second(b).header()['tensors']}
    for k, x in s.parts.items(): assert same(x._replace(scale=x.scale.half().float()) if kinds[k] == 'coded' else x, t.parts[k]), k
    assert to_bytes(t, coded) == b, 'written again it is the same file'
    assert all(line.isprintable() for line in lq.describe(b))


@QUICK
@given(st.integers(1, 5), st.integers(1, 70), st.integers(0, 99), st.floats(-4, 3))
def test_q4_is_what_the_page_says(o, i, seed, size):
    "Codes computed here, by the rule and with Python's own arithmetic where float32 allows it."
    w = torch.randn(o, i, generator=torch.Generator().manual_seed(seed))*10**size; b = lq.q4_bytes(pack(w)); r = Second(b); got = torch.tensor(r.q4()).view(o, i)
    assert r.at == len(b)
    for row, back in zip(w, got, strict=True):
        for a, c in zip(row.split(32), back.split(32), strict=True): assert float((a - c).abs().max()) <= float(a.abs().max())/14*1.0001


# damage

FILES = {'voice': fuzz.voice(), 'coded': fuzz.voice(True), 'world': fuzz.world('full', dict.fromkeys(lq.HEADS, 'empty')), 'pruned': fuzz.world('wanda40-q4')}


@pytest.mark.parametrize('name', FILES)
def test_cut_anywhere(name):
    "Every beginning of a file is refused, and the line says where the file ends."
    b = FILES[name]; tail = 16 if name in ('world', 'pruned') else 0  # the four last records of a world model may be left out
    for n in range(0, len(b), 3 if tail else 1):
        try: lines = lq.describe(b[:n])
        except lq.BadFile as e: assert 'byte' in str(e) and '\n' not in str(e), str(e)
        else: assert tail and n >= len(b) - tail and (len(b) - n) % 4 == 0, (n, lines)


@pytest.mark.parametrize('name', FILES)
def test_every_bit(name):
    b = FILES[name]; rng = random.Random(0)
    for i in range(0, len(b), 1 if len(b) < 1000 else 7):
        for bit in rng.sample(range(8), 3 if name == 'voice' else 1): fuzz.check(fuzz.signed(b[:i] + bytes([b[i] ^ 1 << bit]) + b[i+1:]))
    if name in ('voice', 'coded'):
        for i in range(len(b)):
            with pytest.raises(lq.BadFile): lq.load_lq40(b[:i] + bytes([b[i] ^ 1 << rng.randrange(8)]) + b[i+1:])  # the checksum is not made right


@settings(QUICK, max_examples=800)
@given(st.sampled_from(sorted(FILES)), st.integers(0, 1 << 40))
def test_any_damage_is_a_user_error(name, seed):
    r = random.Random(seed); b = FILES[name]
    fuzz.check(fuzz.mutate(b, r, list(FILES.values()), FIELDS[name]))


FIELDS = {k: fuzz.fields_of(b) for k, b in FILES.items()}


@QUICK
@given(st.binary(max_size=300), st.binary(max_size=40))
def test_noise(noise, more):
    for b in (noise, b'LQ40' + noise, b'LQ40' + struct.pack('<I', len(noise)) + noise + more, lq.header_bytes({**fuzz.SIZES, 'mode': 'full'}) + noise,
              fuzz.signed(lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=[['a', 'coded', [2, 3], 4, 0]])) + noise + bytes(4))): fuzz.check(b)


@QUICK
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.sampled_from(('mode', 'tensors', 'card', 'config', 'scheme', 'vocoder', 'x')), x), max_leaves=12))
def test_any_json(x):
    raw = json.dumps(x).encode()
    for r in (raw, json.dumps({**dict.fromkeys(('card', 'config', 'vocoder'), {}), 'scheme': '', 'mode': lq.MODE, 'tensors': x}).encode()): fuzz.check(fuzz.signed(b'LQ40' + struct.pack('<I', len(r)) + r + bytes(40)))


def frame(raw, body=b''): return b'LQ40' + struct.pack('<I', len(raw)) + raw + body


def table(*rows): return fuzz.signed(lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=list(rows))) + bytes(4096))


def coded_file(body, block=0): return fuzz.signed(lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=[['a', 'coded', [2, 3], 4, block]])) + body + bytes(4))


BOMBS = {
    'brackets': frame(b'[' * (1 << 18)), 'braces': frame(b'{"a":' * 50_000), 'pairs of brackets': frame(b'{"mode":"x","a":[' + b'[],'*87_000 + b'1]}'), 'one open string': frame(b'"' + b'\\"' * 130_000), 'quotes': frame(b'"' * (1 << 18)),
    'long number': frame(b'{"mode":' + b'9' * 250_000 + b'}'), 'long fraction': frame(b'{"mode":.' + b'9' * 250_000 + b'}'), 'keys': frame(b'{' + b','.join(b'"%d":0' % i for i in range(25_000)) + b'}'),
    'header of 4 GB': b'LQ40' + b'\xff' * 4, 'header beyond the limit': frame(b' ' * ((1 << 18) + 1)), 'f32 of 2^47': table(['a', 'f32', [1 << 24, 1 << 23], 32, 0]), 'axes': table(['a', 'f32', [0, *[(1 << 32) - 1]*7], 32, 0]),
    'wide block': coded_file(lq.coded_bytes(pack(torch.ones(2, 3), 4, 0)), (1 << 32) - 1), 'empty q4': fuzz.signed(lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=[['a', 'q4', [1 << 16, 1 << 11], 4, 32]])) + struct.pack('<4I', 1 << 16, 1 << 11, 1 << 22, 0) + bytes((1 << 19) + 4)),
    'many tensors': frame(json.dumps(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=[[f'{i}', 'f32', [0], 32, 0] for i in range(9_000)])).encode(), bytes(60_000)),
    'layers': frame(json.dumps({**lq.LEWM, 'mode': 'full', 'encoder_layers': 1 << 40}).encode(), bytes(1000)), 'image': frame(json.dumps({**lq.LEWM, 'mode': 'full', 'image_size': 65536, 'patch_size': 1}).encode(), bytes(1000)),
    'zlib': coded_file(struct.pack('<3I4xI', 2, 3, 1, len(z := zlib.compress(bytes(50_000_000), 9))) + z),
}


@pytest.mark.parametrize('name', BOMBS)
def test_little_never_becomes_much(name):
    b = BOMBS[name]; tracemalloc.start()
    try:
        with pytest.raises(lq.BadFile, match='byte'): lq.describe(b)
        peak = tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()
    assert peak < (16 << 20) + 4*len(b)


def test_every_refusal_is_its_own_line():
    rows = [['a', 'q4', [2, 40], 4, 32]]; h = lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=rows)); good = lq.q4_bytes(pack(torch.ones(2, 40)))
    n = len(h); lq.load_lq40(fuzz.signed(h + good + bytes(4)))

    def said(body):
        with pytest.raises(lq.BadFile) as e: lq.load_lq40(fuzz.signed(h + body + bytes(4)))
        return str(e.value)

    def put(at, new): return good[:at] + new + good[at+len(new):]
    assert f'byte {n}: a: rows is 9 where 2' in said(put(0, struct.pack('<I', 9)))
    assert f'byte {n+8}: a: blocks is 3 where 4' in said(put(8, struct.pack('<I', 3)))
    assert f'byte {n+12}: a: 5 blocks announced, 4 marked' in said(put(12, struct.pack('<I', 5)))
    assert f'byte {n+16}: a: the bitmap marks blocks behind' in said(put(16, b'\x1f'))
    assert f'byte {n+17}: a: a stored block has scale nan' in said(put(17, struct.pack('<f', math.nan)))
    assert f'byte {n+37}: a: a stored block has scale -1.0' in said(put(37, struct.pack('<f', -1)))
    assert f'byte {n+37}: a: a stored block has scale inf' in said(put(37, struct.pack('<f', math.inf))) and 'has scale 0.0' in said(put(37, bytes(4))) and 'has scale -0.0' in said(put(37, struct.pack('<f', -0.)))
    assert f'byte {n+57+20+4}: a: row 1 is not filled' in said(put(57+20+4+4, b'\x98'))
    assert 'left over' in said(good + b'more') and 'are left' in said(good[:-6])


def test_deflated_codes_must_end_where_they_should():
    def said(codes, more=b'', head=(2, 3, 1), scale=1., cut=None):
        raw = zlib.compress(codes)[:cut] + more
        with pytest.raises(lq.BadFile) as e: lq.load_lq40(coded_file(struct.pack('<3I2eI', *head, scale, 1., len(raw)) + raw))
        return str(e.value)

    good = bytes([1, 2, 3, 255, 254, 248]); lq.load_lq40(coded_file(struct.pack('<3I2eI', 2, 3, 1, 1., 1., len(zlib.compress(good))) + zlib.compress(good)))
    assert 'inflate to less than 6' in said(good[:5]) and 'inflate to more than 6' in said(good + b'!') and 'end elsewhere' in said(good, b'!') and 'end elsewhere' in said(good, zlib.compress(b''))
    assert 'end elsewhere' in said(good, cut=-4) and 'inflate' in said(good, cut=-7)
    assert 'does not fit into 4 bits' in said(good[:5] + b'\x08') and 'does not fit into 4 bits' in said(good[:5] + b'\xf7')
    assert 'scales a row is 2 where 1' in said(good, head=(2, 3, 2)) and 'scales: number 0 is -1.0' in said(good, scale=-1) and 'is inf' in said(good, scale=math.inf)
    with pytest.raises(lq.BadFile, match='do not inflate'): lq.load_lq40(coded_file(struct.pack('<3I2eI', 2, 3, 1, 1., 1., 4) + b'abcd'))


@pytest.mark.parametrize('rows', [
    [['a', 'f32', [1], 32, 0], ['a', 'f32', [1], 32, 0]], [['a', 'f32', [1], 32]], [['a', 'f32', [1], 32, 0, 0]], [['', 'f32', [1], 32, 0]], [['a\n', 'f32', [1], 32, 0]], [['ä', 'f32', [1], 32, 0]], [[['a'], 'f32', [1], 32, 0]],
    [['a', ['f32'], [1], 32, 0]], [['a', 'f64', [1], 64, 0]], [['a', 'f32', 1, 32, 0]], [['a', 'f32', [-1], 32, 0]], [['a', 'f32', [True], 32, 0]], [['a', 'f32', [1.0], 32, 0]], [['a', 'f32', [1]*9, 32, 0]],
    [['a', 'f32', [1], 16, 0]], [['a', 'q4', [2, 2], 4, 64]], [['a', 'q4', [2, 2], 5, 32]], [['a', 'q4', [4], 4, 32]], [['a', 'i8', [0, 4], 8, 0]], [['a', 'coded', [2, 2], 1, 0]], [['a', 'coded', [2, 2], 9, 0]], [['a', 'coded', [2, 2], 4, -1]], {'a': 1}, 'x', None, [None], [{}]])
def test_a_table_that_makes_no_sense(rows):
    with pytest.raises(lq.BadFile, match='byte 8: the (table|header)'): lq.load_lq40(table(*rows) if isinstance(rows, list) else fuzz.signed(lq.header_bytes(dict(mode=lq.MODE, scheme='', config={}, vocoder={}, card={}, tensors=rows)) + bytes(64)))


@pytest.mark.parametrize('raw, why', [
    (b'{"mode":"full","mode":"full"}', 'a key stands twice'), (b'{"mode":NaN}', 'NaN is no finite'), (b'{"mode":-Infinity}', '-Infinity is no finite'), (b'{"mode":1e400}', '1e400 is no finite'), (b'{"mode":"\\ud800"}', 'surrogates'),
    (b'{"mode":"\xff"}', 'utf-8'), (b'{"mode":7}', 'names no mode'), (b'{}', 'names no mode'), (b'7', 'no object'), (b'', 'Expecting value'), (b'\xef\xbb\xbf{}', 'BOM'), (b'{"mode":"x"}', "mode 'x' is unknown"), (b' ' * ((1 << 18) + 1), 'header of 262,145 bytes')])
def test_headers_that_lie(raw, why):
    with pytest.raises(lq.BadFile, match='byte ') as e: lq.describe(frame(raw, bytes(200)))
    assert why in str(e.value)


def test_sizes_of_a_world_model_that_lie():
    h = {**fuzz.SIZES, 'mode': 'full'}
    for k, v in (('encoder_layers', 257), ('encoder_layers', 0), ('encoder_hidden', 65537), ('encoder_hidden', True), ('latent_dim', 3.), ('latent_dim', None), ('channels', -1)):
        with pytest.raises(lq.BadFile, match=f'byte 8: the header says {k}'): lq.read_lewm(lq.header_bytes({**h, k: v}) + bytes(99))
    for b in (FILES['world'], FILES['pruned']):
        with pytest.raises(lq.BadFile, match='1 bytes are left over'): lq.read_lewm(b + b'!', strict=False)


def test_wrong_kind_of_file_for_the_reader(tmp_path):
    with pytest.raises(UserError, match='use `read_lewm`'): lq.load_lq40(FILES['world'])
    with pytest.raises(UserError, match='read by `load_lq40`'): lq.read_lewm(FILES['voice'])
    with pytest.raises(UserError, match='projector.0.w has 0 numbers'): lq.read_lewm(FILES['world'])
    assert lq.read_lewm(FILES['world'], strict=False).tensors['projector.0.w'].shape == (0,)


# the disk

def test_no_file_and_no_ordinary_file(tmp_path):
    for p in (tmp_path, tmp_path/'no', '\0', tmp_path/'a'/'b'):
        with pytest.raises(UserError, match='no file'): lq.load_lq40(p)
    os.mkfifo(tmp_path/'pipe'); done = []
    def read():
        try: lq.describe(tmp_path/'pipe')
        except UserError as e: done.append(str(e))
    t = threading.Thread(target=read, daemon=True); t.start(); t.join(5)
    assert done and 'no file' in done[0], 'a pipe must not make the reader wait'
    (tmp_path/'secret').write_bytes(FILES['voice']); (tmp_path/'secret').chmod(0)
    if os.geteuid():
        with pytest.raises(UserError, match='Permission'): lq.load_lq40(tmp_path/'secret')


def test_a_file_that_shrinks_or_breaks_while_it_is_read(tmp_path):
    class Broken(lq.io.BytesIO):
        def readinto(self, b): raise OSError(5, 'Input/output error')
    b = FILES['voice']; src = lq.Source(lq.io.BytesIO(b[:-30]), len(b), 'f')
    with pytest.raises(lq.BadFile, match='shrank'):
        for _ in lq._voice(src, lq.read_header(src)): pass
    (tmp_path/'v').write_bytes(b)
    with pytest.raises(UserError, match='Input/output error'), lq.opened(tmp_path/'v') as src: src.file = Broken(); src.u32('n')


def test_a_failed_write_leaves_the_old_file(tmp_path):
    p = tmp_path/'v.lq40'; lq.save_lq40(small({'model.a': torch.ones(3)}), p); old = p.read_bytes()
    for bad in ({'model.a': torch.ones(3), 'model.b': torch.tensor([math.nan])}, {'a b': torch.ones(1)}, {'model.a': torch.ones(2, dtype=torch.long)}, {'x': torch.ones(1).double()}):
        with pytest.raises(UserError): lq.save_lq40(small(bad), p)
        assert p.read_bytes() == old and list(tmp_path.iterdir()) == [p]
    for kw in (dict(card={'x': math.inf}), dict(card={'x': object()}), dict(card={'x': '\ud800'}), dict(card={'x': json.loads('['*40 + ']'*40)}), dict(card={'x': 'y'*(1 << 20)})):
        with pytest.raises(UserError, match='header'): lq.save_lq40(small({}, **kw), p)
    with pytest.raises(UserError): lq.save_lq40(small({}), p/'below')


def test_the_writers_refuse_what_the_readers_would():
    for f, p in ((lq.q4_bytes, pack(torch.ones(2, 2), 8, 0)), (lq.i8_bytes, pack(torch.ones(2, 2))), (lq.q4_bytes, pack(torch.ones(2, 2))._replace(scale=-torch.ones(2, 1))), (lq.coded_bytes, pack(torch.full((2, 2), 1e9), 4, 0))):
        with pytest.raises(UserError, match='pack'): f(p, 'w')
    t = lq.lewm_stand_in(fuzz.SIZES, 5)
    for bad in ({'enc.cls': torch.ones(5)}, {'projector.1.w': torch.ones(7)}):
        with pytest.raises(UserError, match='must have'): b''.join(lq.lewm_bytes({**t, **bad}, 'full', fuzz.SIZES))
    with pytest.raises(UserError, match='must have .* got none'): b''.join(lq.lewm_bytes({}, 'full', fuzz.SIZES))
    with pytest.raises(UserError, match='unknown LeWM mode'): b''.join(lq.lewm_bytes(t, 'q5', fuzz.SIZES))


def test_text_from_a_file_is_fit_for_a_terminal():
    b = to_bytes(small({'model.a': torch.ones(1)}, config={'preset': '\x1b[2J\n\r\x07', 'sr': 'x'*5000}, scheme='\u202eevil'))
    lines = lq.describe(b)
    assert all(line.isprintable() and len(line) < 400 for line in lines) and 'evil' in lines[1]


def test_the_page_names_every_limit_that_the_code_has():
    page = (Path(__file__).parent.parent/'data'/'LQ40.md').read_text(encoding='utf-8')
    assert (lq.ROOM, lq.SWELL, lq.MAX_JSON, lq.MAX_DEPTH) == (16 << 20, 16, 1 << 18, 24) and '16 MiB plus 16 times' in page and '256 KiB or deeper than 24' in page
    for k in lq.LEWM: assert k in page
    for k in (*lq.MODES, lq.MODE, *lq.KINDS, 'coded', *lq.HEADS): assert k in page, k
