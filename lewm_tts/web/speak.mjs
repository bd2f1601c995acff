// A voice in the browser: text to ids, four ONNX graphs, sound. What lessons 00b and 10h do in Python, in the same order and with the same numbers.
// No dependency but onnxruntime-web, which is handed in: `const voice = await Voice.load(ort, 'voice.json')`.

const ONES = 'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen'.split(' ');
const TENS = '0 0 twenty thirty forty fifty sixty seventy eighty ninety'.split(' '), POWERS = ['', 'thousand', 'million', 'billion', 'trillion'];
const ORDINAL = {one:'first', two:'second', three:'third', five:'fifth', eight:'eighth', nine:'ninth', twelve:'twelfth'};

/** A whole number below 10^15 in words, British "and", no hyphens. */
export function cardinal(n) {
  if (n < 20) return ONES[n];
  if (n < 100) return TENS[Math.floor(n/10)] + (n%10 ? ' ' + ONES[n%10] : '');
  if (n < 1000) return ONES[Math.floor(n/100)] + ' hundred' + (n%100 ? ' and ' + cardinal(n%100) : '');
  const k = Math.floor((String(n).length-1)/3), unit = 1000**k, rest = n % unit;
  return cardinal(Math.floor(n/unit)) + ' ' + POWERS[k] + (rest ? (rest < 100 ? ' and ' : ' ') + cardinal(rest) : '');
}

export function ordinal(n) {
  const words = cardinal(n).split(' '), last = words.pop();
  return [...words, ORDINAL[last] ?? (last.endsWith('y') ? last.slice(0, -1) + 'ie' : last) + 'th'].join(' ');
}

export function year(n) {
  const high = Math.floor(n/100), low = n%100;
  if (!high || (high%10 === 0 && low < 10) || high >= 100) return cardinal(n);
  return cardinal(high) + ' ' + (low === 0 ? 'hundred' : low < 10 ? 'oh ' + ONES[low] : cardinal(low));
}

const digits = s => [...s].map(c => ONES[+c]).join(' ');
function say(s, how = cardinal) {
  s = s.replaceAll(',', '');
  return s.length > 15 || (s[0] === '0' && s.length > 1 && how !== ordinal) ? digits(s) : how(Number(s));
}
const decimal = (whole, frac) => say(whole) + (frac ? ' point ' + digits(frac) : '');
const plural = w => w.endsWith('y') ? w.slice(0, -1) + 'ies' : w + (w.endsWith('x') ? 'es' : 's');
const MONEY = {'$':['dollar', 'cent'], '£':['pound', 'pence'], '€':['euro', 'cent']}, NUM = '(?:\\d{1,3}(?:,\\d{3})+(?!\\d)|\\d+)';

function money(_, sign, whole, frac, big) {
  const [unit, small] = MONEY[sign];
  if (big) return ` ${decimal(whole, frac)} ${big} ${unit}s `;
  const out = `${say(whole)} ${unit}${whole === '1' ? '' : 's'}`;
  if (!frac || !Number(frac)) return ` ${out} `;
  const c = Number(frac.padEnd(2, '0').slice(0, 2));
  return ` ${out} and ${say(String(c))} ${c === 1 || small === 'pence' ? small : small + 's'} `;
}

function numbers(t) {
  t = t.replace(RegExp(`([$£€])\\s?(${NUM})(?:\\.(\\d+))?(?:\\s(million|billion|thousand)\\b)?`, 'g'), money);
  t = t.replace(/(?<![\p{L}\p{N}_])([01]?\d|2[0-3]):([0-5]\d)(?!\d)/gu, (_, h, m) => ` ${say(String(+h))} ${m === '00' ? '' : m[0] === '0' ? 'oh ' + say(m[1]) : say(m)} `);
  t = t.replace(RegExp(`(?<!\\d)(${NUM})(?:st|nd|rd|th)\\b`, 'g'), (_, n) => ` ${say(n, ordinal)} `);
  t = t.replace(/(?<![\d.,])(1[1-9]\d\d|20\d\d)(s?)(?![\d%]|[.,]\d)/g, (_, n, s) => ` ${s ? plural(say(n, year)) : say(n, year)} `);
  t = t.replace(/(?<=\s|^)-(?=\d)/g, 'minus ');
  return t.replace(RegExp(`(${NUM})(?:\\.(\\d+))?`, 'g'), (_, a, b) => ` ${decimal(a, b)} `);
}

const SIGNS = [['&', ' and '], ['@', ' at '], ['%', ' percent '], ['+', ' plus '], ['=', ' equals '], ['°', ' degrees '], ['⁄', ' over '], ['ß', 'ss'], ['æ', 'ae'], ['œ', 'oe'], ['ø', 'o'], ['ł', 'l'],
  ['đ', 'd'], ['ı', 'i'], ['’', "'"], ['‘', "'"], ['‛', "'"], ['`', "'"], ['´', "'"], ['–', '-'], ['—', ' - '], ['―', ' - '], ['--', ' - ']];
const SHORT = {mr:'mister', mrs:'missus', dr:'doctor', vs:'versus', etc:'et cetera'};
const squeeze = t => t.split(/\s+/u).filter(Boolean).join(' ');

/** `text.normalise_text`: small letters, spaces and , . ? ! ; : ' - only; digits and signs become words. Throws on a text that says nothing. */
export function normalise(text, mode = 'en') {
  let t = text;
  if (mode === 'auto') [mode, t] = [...t].some(c => /\p{L}/u.test(c) && !/\p{Script=Latin}/u.test(c)) ? ['none', t.replaceAll('।', '.')] : ['en', t];
  if (mode === 'en') {
    t = t.replaceAll('’', "'").replaceAll('‘', "'").replaceAll('´', "'").normalize('NFKC').toLowerCase();
    t = t.replace(/(?![0-9])\p{Nd}/gu, c => { let v = 0; while (v < 9 && /\p{Nd}/u.test(String.fromCodePoint(c.codePointAt(0)-v-1))) v++; return String(v); });
    t = numbers(t);
    for (const [a, b] of SIGNS) t = t.replaceAll(a, b);
    t = squeeze(t.normalize('NFKD').replace(/\p{M}/gu, '').replace(/[^a-z ,.?!;:'-]/g, ' '));
    t = t.replace(/\b(mr|mrs|dr|vs|etc)\b\.?/g, (_, w) => SHORT[w]);
    t = squeeze(t.replace(/(?<![a-z])'+|'+(?![a-z])/g, ' '));
    t = t.replace(/(?<![a-z])-+|-+(?![a-z])/g, ' - ');
    t = t.replace(/(?:\s*-\s)+/g, ' - ').replace(/\s+(?=[,.?!;:])/g, '');
    t = t.replace(/(?:[,.?!;:]\s*|- )*([,.?!;:])/g, '$1');
    t = t.replace(/([,.?!;:])(?=[a-z])/g, '$1 ').replace(/^[ ,.?!;:'-]+/, '').replace(/[ -]+$/, '');
    t = t.replace(/\b([b-hj-z])\.(?=\s*[a-z])|\b([ai])\.(?=\s*[a-z]\b)/g, '$1$2 ');
  }
  t = squeeze(t);
  if (!t || (mode === 'en' && !/[a-z]/.test(t))) throw new Error(`nothing to speak in '${text.slice(0, 40)}'; give at least one word`);
  return t;
}

/** `text.text_to_ids`: begin, each UTF-8 byte + 3, end. */
export const textToIds = text => [1, ...[...new TextEncoder().encode(text)].map(b => b+3), 2];

const QUIET = {',':.12, ';':.2, ':':.2, '-':.12, '.':.35, '!':.35, '?':.35}, LONGEST = 75;
const NEVER = /(?:^|[\s(])(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|no|vol|[a-z])\.$/i;

/** Sentences, then clauses of at most 75 letters, as [{text, pause}]. Simpler than `script.script`: it knows fewer abbreviations and no [pause]. */
export function pieces(text, mode = 'en') {
  const sentences = [''];
  for (const part of text.split(/(?<=[.!?…]["'”’)\]]*)\s+|\n+/u)) {
    const last = sentences.length-1;
    if (sentences[last] && NEVER.test(sentences[last])) sentences[last] += ' ' + part;
    else sentences.push(part);
  }
  const out = [];
  for (const s of sentences) {
    let t; try { t = normalise(s, mode); } catch { continue; }
    while (t.length > LONGEST) {
      const head = t.slice(0, LONGEST+1), at = Math.max(...[', ', '; ', ': ', ' - '].map(m => head.lastIndexOf(m) + (head.lastIndexOf(m) < 0 ? 0 : m.length)), 0);
      const cut = at > 12 ? at : head.lastIndexOf(' ') > 0 ? head.lastIndexOf(' ')+1 : LONGEST;
      out.push(t.slice(0, cut).trim()); t = t.slice(cut).trim();
    }
    if (t) out.push(t);
  }
  if (!out.length) throw new Error(`nothing to speak in '${text.slice(0, 40)}'; give at least one word`);
  return out.map(t => ({text:t, pause:QUIET[t.at(-1)] ?? (mode === 'en' ? 0 : .35)}));
}

/** `predictor.pointer`: where in the text each of t latents is, read at its middle. */
export function pointer(dur, t, downsample) {
  const ends = []; let sum = 0, i = 0;
  for (const d of dur) ends.push(sum = Math.fround(sum+d));
  return Array.from({length:t}, (_, k) => {
    const at = (k+.5)*downsample;
    while (i < dur.length-1 && ends[i] <= at) i++;
    return i + Math.min(1, Math.max(0, (at-(ends[i]-dur[i]))/Math.max(dur[i], 1e-3)));
  });
}

function fade(wav, n = 120) {
  n = Math.min(n, wav.length >> 1);
  for (let i = 0; i < n; i++) { wav[i] *= i/(n-1); wav[wav.length-1-i] *= i/(n-1); }
  return wav;
}

export class Voice {
  /** ort: the onnxruntime-web module; url: of voice.json; progress(loaded, of) in bytes. */
  static async load(ort, url = 'voice.json', progress = () => {}) {
    const v = new Voice(); v.ort = ort;
    const get = async (u, seen) => {
      const r = await fetch(u); if (!r.ok) throw new Error(`${u}: ${r.status} ${r.statusText}`);
      if (!seen) return r;
      const parts = []; for (let reader = r.body.getReader(), c; !(c = await reader.read()).done; parts.push(c.value)) seen(c.value.length);
      return new Uint8Array(await new Blob(parts).arrayBuffer());
    };
    v.about = await (await get(url)).json();
    if (v.about.format !== 'lewm_tts onnx' || v.about.version !== 1) throw new Error(`${url} is no voice that this page can read`);
    v.n = v.about.numbers; v.cfg = v.about.config; v.graphs = {};
    const all = Object.values(v.about.graphs).reduce((s, g) => s+g.bytes, 0); let done = 0; progress(0, all);
    const base = new URL(url, location.href);
    for (const [k, g] of Object.entries(v.about.graphs))
      v.graphs[k] = await ort.InferenceSession.create(await get(new URL(g.file, base), n => progress(done += n, all)), {executionProviders:['wasm'], graphOptimizationLevel:'all'});
    return v;
  }

  float(data, ...dims) { return new this.ort.Tensor('float32', Float32Array.from(data), dims); }
  int(data, ...dims) { return new this.ort.Tensor('int64', BigInt64Array.from(data, BigInt), dims); }

  /** The latents of one piece, free-running: {z: [Float32Array], pos, ended}. */
  async latents(text, {speed = 1, speaker = 0, temperature = 0, random = Math.random} = {}) {
    const n = this.n, ids = textToIds(text), feed = {ids:this.int(ids, 1, ids.length)};
    if (this.cfg.n_speakers > 1) feed.speaker = this.int([speaker], 1);
    const t = await this.graphs.text.run(feed), pointed = 'dur' in t, hz = n.sr/n.hop/n.downsample;
    let steps = Math.ceil((2 + .25*ids.length)*hz/(pointed ? Math.min(1, speed) : 1)), pos = null; const cap = steps;
    if (pointed) {
      const dur = Array.from(t.dur.data, d => Math.fround(d/speed)), sum = dur.reduce((a, b) => Math.fround(a+b), 0);
      steps = Math.min(steps, Math.max(1, Math.ceil(sum/n.downsample - 1e-3))); pos = pointer(dur, steps, n.downsample);
    }
    const empty = () => this.float([], n.layers, 1, n.heads, 0, n.head_width), zs = [];
    let past_k = empty(), past_v = empty(), z = n.bos, ended = pointed && steps < cap;
    for (let i = 0; i < Math.ceil(steps/n.chunk); i++) {
      const row = {z:this.float(z, 1, n.d*n.chunk), past_k, past_v, t:this.int([i], 1), text_k:t.text_k, text_v:t.text_v};
      if (pointed) {
        const mine = Array.from({length:n.chunk}, (_, j) => pos[Math.min(steps-1, i*n.chunk+j)]);
        row.pos = this.float([mine.reduce((a, b) => a+b)/n.chunk], 1); row.here = t.here;
      }
      if (t.cond) row.cond = t.cond;
      if (n.noise) row.noise = this.float(new Float32Array(n.noise), 1, n.noise);
      const r = await this.graphs.step.run(row);
      z = r.mean.data; past_k = r.new_k; past_v = r.new_v;
      if (temperature > 0) z = z.map((m, j) => m + Math.exp(r.logstd.data[j])*Math.sqrt(temperature)*Math.sqrt(-2*Math.log(1-random()))*Math.cos(2*Math.PI*random()));
      for (let j = 0; j < n.chunk && zs.length < steps; j++) zs.push(z.slice(j*n.d, (j+1)*n.d));
      if (!pointed && r.stop.data[0] > 0) { ended = true; break; }
    }
    return {z:zs, pos, ended};
  }

  /** One piece: {wav, mel, frames, latents, ended}. The norm guard is `model.bounded`. */
  async piece(text, how = {}) {
    const n = this.n, {z, ended} = await this.latents(text, how), flat = new Float32Array(z.length*n.d), top = 2.2*Math.sqrt(n.d);
    z.forEach((row, i) => { const long = Math.sqrt(row.reduce((s, x) => s+x*x, 0)), k = top/Math.max(long, top); row.forEach((x, j) => { flat[i*n.d+j] = x*k; }); });
    const {mel} = await this.graphs.decoder.run({z:this.float(flat, 1, z.length, n.d)});
    const {wav} = await this.graphs.vocoder.run({mel});
    return {wav:fade(Float32Array.from(wav.data)).map(x => Math.min(1, Math.max(-1, x))), mel:mel.data, frames:mel.dims[1], latents:z.length, ended};
  }

  /** Yield one {wav, mel, frames, text} after the other; the quiet after a piece is part of its sound. */
  async *stream(text, how = {}) {
    for (const p of pieces(text, this.cfg.text_norm)) {
      const r = await this.piece(p.text, how), quiet = Math.trunc(p.pause/(how.speed ?? 1)*this.n.sr), wav = new Float32Array(r.wav.length+quiet);
      wav.set(r.wav); yield {...r, wav, text:p.text};
    }
  }

  async speak(text, how = {}) {
    const all = []; for await (const p of this.stream(text, how)) all.push(p);
    const wav = new Float32Array(all.reduce((s, p) => s+p.wav.length, 0)); let at = 0;
    for (const p of all) { wav.set(p.wav, at); at += p.wav.length; }
    return {wav, pieces:all, seconds:wav.length/this.n.sr};
  }
}

/** 16-bit mono WAV file. */
export function wavFile(wav, sr) {
  const b = new DataView(new ArrayBuffer(44+2*wav.length)), text = (at, s) => [...s].forEach((c, i) => b.setUint8(at+i, c.charCodeAt(0)));
  text(0, 'RIFF'); b.setUint32(4, 36+2*wav.length, true); text(8, 'WAVEfmt '); b.setUint32(16, 16, true); b.setUint16(20, 1, true); b.setUint16(22, 1, true);
  b.setUint32(24, sr, true); b.setUint32(28, 2*sr, true); b.setUint16(32, 2, true); b.setUint16(34, 16, true); text(36, 'data'); b.setUint32(40, 2*wav.length, true);
  wav.forEach((x, i) => b.setInt16(44+2*i, Math.round(Math.min(1, Math.max(-1, x))*32767), true));
  return new Blob([b.buffer], {type:'audio/wav'});
}
