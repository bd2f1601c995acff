"""Very short and long inputs: one, two and three words, and a 60-word paragraph, counted in words heard wrong beside the teacher's.

    python bench/short_texts.py [--out bench/short_texts.json]
"""
import argparse, json, tempfile
from pathlib import Path

import torch

from lewm_tts.core import atomic_path
from lewm_tts.data import Corpus, build_corpus
from lewm_tts.engine import Voice
from lewm_tts.evaluate import Recogniser, wer

WORDS = ('yes no stop hello please thanks monday water morning kitchen seven coffee garden window friend music yellow tomorrow doctor paper river summer '
         'table orange ticket dinner holiday bridge market letter').split()
PARAGRAPH = ('the old keeper walked along the river until the light went down behind the hill, and then he sat on a stone to eat the bread that his sister had put '
             'into the bag, while the dog slept beside him and the water sang. nobody came that night, so he told the story to the wind, and the wind, as always, listened.')


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--out', default='bench/short_texts.json')
    a = ap.parse_args()
    torch.set_num_threads(1)
    n = len(WORDS)
    kinds = {'one word': WORDS, 'two words': [f'{WORDS[i]} {WORDS[(7*i+3) % n]}' for i in range(n)],
             'three words': [f'{WORDS[i]} {WORDS[(7*i+3) % n]} {WORDS[(11*i+5) % n]}' for i in range(n)], 'paragraph': [PARAGRAPH]}
    voice, rows = Voice.load(), {}
    with tempfile.TemporaryDirectory() as d:
        for kind, texts in kinds.items():
            rec = Recogniser(texts, [] if kind == 'paragraph' else [t for k in kinds if k not in (kind, 'paragraph') for t in kinds[k]])
            said = [voice.speak(t) for t in texts]
            teacher = [u.wav for u in Corpus(build_corpus(texts, Path(d)/kind.replace(' ', '-'), progress=False))]
            h, e = rec.hear_all([s.wav for s in said]), rec.hear_all(teacher)
            rows[kind] = dict(texts=len(texts), words=sum(len(t.split()) for t in texts), wer=wer(texts, h).wer, wer_teacher=wer(texts, e).wer,
                              nothing_heard=sum(not x for x in h), ended=sum(s.ended for s in said), seconds=round(sum(s.seconds for s in said)/len(said), 2))
            print(kind, json.dumps(rows[kind]), flush=True)
    with atomic_path(a.out) as p: p.write_text(json.dumps(dict(command='python bench/short_texts.py', rows=rows), indent=1)+'\n')


if __name__ == '__main__': main()
