"Everything is read from settings.ini; this file holds no fact of its own."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def settings(path=ROOT/'settings.ini'):
    "The [DEFAULT] section of settings.ini as a dict of strings."
    cp = ConfigParser(delimiters=['='])
    with open(path, encoding='utf-8') as f: cp.read_file(f)
    return dict(cp['DEFAULT'])


def lines(value): return [line.strip() for line in value.splitlines() if line.strip()]


def extras(cfg):
    "Extra name -> requirements; dev holds those that the tests need."
    res = {k: lines(cfg[f'{k}_requirements']) for k in ('toy', 'eval', 'serve', 'prepare', 'onnx', 'ray', 'peers', 'browser', 'dev')}
    res['dev'] = [r for k in ('toy', 'eval', 'serve', 'prepare', 'onnx', 'dev') for r in res[k]]
    return res


def main():
    cfg = settings()
    readme = ROOT/'README.md'
    setup(
        name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'],
        long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
        long_description_content_type='text/markdown',
        author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
        license='Apache-2.0', license_files=['LICENSE'],
        packages=find_packages(include=[cfg['lib_name'], cfg['lib_name'] + '.*']),
        package_data={cfg['lib_name']: ['voices/**/*', 'web/*']}, zip_safe=False,
        python_requires='>=' + cfg['min_python'],
        install_requires=lines(cfg['requirements']), extras_require=extras(cfg),
        entry_points={'console_scripts': lines(cfg['console_scripts']), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
        classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research',
                     'Programming Language :: Python :: 3', 'Topic :: Multimedia :: Sound/Audio :: Speech'])


if __name__ == '__main__': main()
