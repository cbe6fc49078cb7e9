"""Child of test_runners.py, with eight virtual CPU devices: arguments are the .npz to write, and
which part of the cases to run, "few" or "rest".

Everything is written as name/of/the/case -> array; the parent compares. All that needs more than
one device is here, so that JAX starts once for each part. The few have each runner, and each number
of devices that says something of its own, once.
"""

import dataclasses
import functools
import itertools
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

import models
from data_sources import digits, plans
from tasks import calibration
from tasks.classification import Classification
from tests.training import probe
from training import optimizers, state, step
from training.runner import Runner
from training.spec import StepSpec

DEVICES = (1, 2, 4, 8)
SOME = (2, 8)  # where two say as much as four
KINDS = ('pmap', 'shard_map')
NETWORKS = {'lenet': SOME, 'deep_cnn': DEVICES}
# What is in the part that is run first; all else is in the rest.
FEW = (('shard_map', 2), ('pmap', 8))
FEW_DRAWN = FEW[:1]  # of what is drawn at random
FEW_KIND = 'pmap'
FEW_NETWORK = 'deep_cnn'
FEW_PARTITIONED = (('pmap', 'sync'), ('shard_map', 'own'))
FEW_MIXED = (('bce', 'pmap'), ('bce', 'vmap'))
PART = 'few'
BATCH = 16
# Which of the 16 are real: all; or unequal shards on every device count, one of them empty.
MASKS = {
    'full': np.ones(BATCH, np.float32),
    'masked': np.array([1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0], np.float32),
}
# One set of hyperparameters and one starting state per lane of a population.
LANES = (
    {'learning_rate': 0.1, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'seed': 3, 'step': 2},
    {'learning_rate': 0.3, 'weight_decay': 0.02, 'label_smoothing': 0.2, 'seed': 8, 'step': 11},
)
EVAL_SIZES = (7, 64, 1000)
# The first block frozen, its norm with it; the rest at rates of its own.
FREEZE = ('conv1/*', 'norm1/*')
FROZEN = frozenset(
    {'conv1/kernel', 'conv1/bias', 'norm1/scale', 'norm1/bias', 'norm1/mean', 'norm1/var'}
)
FACTORS = {'conv2/kernel': 0.5, 'conv2/bias': 0.5, 'head/kernel': 4.0}
# All that is done to images besides the affine map, and how strongly.
MIXED = ('crop', 'flip', 'erase', 'mixing')
MIXING = {'crop': 2, 'flip': 0.5, 'mixup': 0.4, 'cutmix': 1.0, 'erase': 0.5,
          'mix_probability': 0.9, 'cutmix_share': 0.5}  # fmt: skip
RESULTS = {}


def is_few(network, kind, devices):
    return network == FEW_NETWORK and (kind, devices) in FEW


def mine(few):
    """Whether a case, one of the few or not, belongs to this part."""
    return few == (PART == 'few')


def devices_here(devices, few=FEW):
    """Pairs (kind, devices) of this part."""
    return [pair for pair in itertools.product(KINDS, devices) if mine(pair in few)]


def kinds_here():
    return [kind for kind in KINDS if mine(kind == FEW_KIND)]


def record(name, tree):
    for path, leaf in flatten_dict(jax.device_get(tree), sep='/').items():
        RESULTS[f'{name}/{path}'] = np.asarray(leaf)


def schedule(count):
    """Not constant: a lane's own step number shows in its rate."""
    return 1.0 / (1.0 + count)


def spec_of(network, **options):
    model = models.create(network, num_classes=10)
    return StepSpec(model, Classification(10), 'sgd', schedule, (0.1,), (0.3,), **options)


def hyper_of(lane):
    values = {k: np.float32(v) for k, v in lane.items() if k not in ('seed', 'step')}
    return values | {'momentum': np.float32(0.9), 'seed': np.uint32(lane['seed'])}


@functools.cache
def create(network):
    optimizer = optimizers.make('sgd', hyper_of(LANES[0]))
    model = models.create(network, num_classes=10)
    return jax.jit(functools.partial(state.create, model, optimizer, (28, 28, 1), use_ema=False))


def start_of(network, lane):
    first = create(network)(seed=np.uint32(lane['seed']))
    return jax.device_get(first).replace(step=np.int32(lane['step']))


def outcome(after, metrics):
    """What a case is compared by; momentum's first trace is the gradient, decay included."""
    traces = [leaf.trace for leaf in after.opt_state if hasattr(leaf, 'trace')]
    return {
        'gradient': traces[0],
        'params': after.params,
        'stats': after.batch_stats,
        'metrics': metrics,
        'step': {'number': after.step},
    }


@functools.cache
def plain_gradient(network):
    """Gradient of the mean smoothed cross-entropy; no code of the step."""
    model = models.create(network, num_classes=10)

    def loss(params, batch_stats, images, labels, smoothing):
        variables = {'params': params, 'batch_stats': batch_stats}
        logits, new = model.apply(variables, images, train=True, mutable=['batch_stats'])
        log_p = jax.nn.log_softmax(logits)
        targets = (1 - smoothing) * jax.nn.one_hot(labels, 10) + smoothing / 10
        plain = -jnp.take_along_axis(log_p, labels[:, None], 1)
        return -(targets * log_p).sum(-1).mean(), (new.get('batch_stats', {}), logits, plain.sum())

    return jax.jit(jax.grad(loss, has_aux=True))


def reference(network, lane, images, labels):
    """The update in plain words: one device, and real examples only."""
    first = start_of(network, lane)
    arguments = (first.params, first.batch_stats, images, labels, lane['label_smoothing'])
    gradient, (stats, logits, plain) = plain_gradient(network)(*arguments)
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradient)))
    gradient = {
        layer: {
            name: g + (lane['weight_decay'] if name == 'kernel' else 0) * first.params[layer][name]
            for name, g in leaves.items()
        }
        for layer, leaves in gradient.items()
    }
    rate = lane['learning_rate'] / (1 + lane['step'])
    return {
        'gradient': gradient,
        'params': jax.tree.map(lambda p, g: p - rate * g, first.params, gradient),
        'stats': stats,
        'metrics': {
            'loss': plain,
            'correct': (logits.argmax(-1) == labels).sum(),
            'count': len(labels),
            'grad_norm': norm,
            'learning_rate': rate,
        },
        'step': {'number': lane['step'] + 1},
    }


def batch_of(mask):
    """16 indices; where the mask is 0 they point at an image that would be noticed."""
    index = np.where(mask > 0, np.arange(BATCH), BATCH).astype(np.int32)
    return {'index': index, 'epoch': np.zeros(BATCH, np.int32), 'mask': mask}


def updates(data):
    here = {
        network: [pair for pair in itertools.product(KINDS, some) if mine(is_few(network, *pair))]
        for network, some in NETWORKS.items()
    }
    here = {network: pairs for network, pairs in here.items() if pairs}
    for network, (case, mask) in itertools.product(here, MASKS.items()):
        real = mask > 0
        images = (data['image'][:BATCH][real] / np.float32(255) - 0.1) / np.float32(0.3)
        for number, lane in enumerate(LANES):
            truth = reference(network, lane, jnp.asarray(images), data['label'][:BATCH][real])
            record(f'{network}/{case}/truth{number}', truth)

    for network, pairs in here.items():
        spec, lane = spec_of(network), LANES[1]
        for kind, devices in pairs:
            runner = Runner(spec, kind, jax.devices()[:devices])
            placed, hyper = runner.replicate(data), runner.replicate(hyper_of(lane))
            for case, mask in MASKS.items():
                first = runner.replicate(start_of(network, lane))
                found = runner.train(first, hyper, runner.split(batch_of(mask)), placed)
                record(f'{network}/{case}/{kind}{devices}', outcome(*found))
        if mine(network == FEW_NETWORK):
            lanes(network, spec, data)


def lanes(network, spec, data):
    """Each lane of a vmapped population, and the same runs one by one; dropout off and on."""
    alone = jax.jit(functools.partial(step.train_step, spec))
    together = jax.jit(jax.vmap(functools.partial(step.train_step, spec), (0, 0, None, None)))
    firsts = [start_of(network, lane) for lane in LANES]
    stacked = jax.tree.map(lambda *x: np.stack(x), *firsts)
    for (case, mask), rate in itertools.product(MASKS.items(), (0.0, 0.4)):
        name, batch = 'dropout' if rate else '', batch_of(mask)
        hypers = [hyper_of(lane) | {'dropout_rate': np.float32(rate)} for lane in LANES]
        many = jax.tree.map(lambda *x: np.stack(x), *hypers)
        found = together(stacked, many, batch, data)
        for number in range(len(LANES)):
            lane = jax.tree.map(lambda x, n=number: x[n], found)
            record(f'{network}/{case}/{name}vmap{number}', outcome(*lane))
            one = alone(firsts[number], hypers[number], batch, data)
            record(f'{network}/{case}/{name}jit{number}', outcome(*one))


def partitioned(data):
    """Frozen parameters and rates of their own: every runner, synchronised or not, and lanes."""
    model = models.create('deep_cnn', num_classes=10, frozen=FREEZE)
    plain = spec_of('deep_cnn', frozen=FROZEN, factors=FACTORS, ema=True)
    spec = dataclasses.replace(plain, model=model)
    optimizer = optimizers.make('sgd', hyper_of(LANES[0]))
    make = functools.partial(state.create, model, optimizer, (28, 28, 1), use_ema=True)
    create = jax.jit(functools.partial(make, frozen=FROZEN))
    firsts, hypers = [], []
    for lane in LANES:
        first = jax.device_get(create(seed=np.uint32(lane['seed'])))
        # Statistics whose mean over devices, or with themselves, is rounded to another number.
        stats = jax.tree.map(lambda x: x + np.float32(0.1), first.batch_stats)
        ema = {**first.ema, 'batch_stats': stats}
        firsts.append(first.replace(batch_stats=stats, ema=ema, step=np.int32(lane['step'])))
        hypers.append(hyper_of(lane) | {'ema_decay': np.float32(0.3)})
    # Three devices: the mean of two or four equal numbers is exact.
    batch = {name: array[:15] for name, array in batch_of(MASKS['full']).items()}

    def note(name, found):
        record(f'partitioned/{name}', outcome(*found) | {'ema': found[0].ema})

    record('partitioned/start', {'params': firsts[1].params, 'stats': firsts[1].batch_stats})
    alone = jax.jit(functools.partial(step.train_step, spec))
    note('jit', alone(firsts[1], hypers[1], batch, data))
    if mine(few=True):
        together = jax.jit(jax.vmap(functools.partial(step.train_step, spec), (0, 0, None, None)))
        stacked = [jax.tree.map(lambda *x: np.stack(x), *trees) for trees in (firsts, hypers)]
        note('vmap', jax.tree.map(lambda x: x[1], together(*stacked, batch, data)))
    for kind, norm in itertools.product(KINDS, ('sync', 'own')):
        if not mine((kind, norm) in FEW_PARTITIONED):
            continue
        sync = dataclasses.replace(spec, sync_batch_norm=norm == 'sync')
        runner = Runner(sync, kind, jax.devices()[:3])
        first, hyper = runner.replicate(firsts[1]), runner.replicate(hypers[1])
        found = runner.train(first, hyper, runner.split(batch), runner.replicate(data))
        note(f'{kind}_{norm}', found)


def mixtures(data):
    """Mixed images with either loss: runners, lanes, micro-batches; some pairs half masked."""
    strengths = {name: np.float32(value) for name, value in MIXING.items()}
    hypers = [hyper_of(lane) | strengths for lane in LANES]
    hypers[0]['mixup'] = np.float32(1.0)
    firsts = [start_of('fcn', lane) for lane in LANES]
    batch = batch_of(MASKS['masked'])

    def on_one(name, spec):
        call = jax.jit(functools.partial(step.train_step, spec))
        record(f'mixed/{name}', outcome(*call(firsts[1], hypers[1], batch, data)))

    def on_eight(loss, spec, kind):
        if not mine((loss, kind) in FEW_MIXED):
            return
        runner = Runner(spec, kind, jax.devices())
        first, hyper, all_data = map(runner.replicate, (firsts[1], hypers[1], data))
        found = runner.train(first, hyper, runner.split(batch), all_data)
        record(f'mixed/{loss}/{kind}', outcome(*found))

    plain = spec_of('fcn')
    spec = dataclasses.replace(plain, augmentations=probe.applied('mixing'))
    on_one('plain', plain)
    if mine(few=False):
        on_one('softmax/jit', spec)
        on_eight('softmax', spec, 'shard_map')
    spec = dataclasses.replace(spec, task=Classification(10, 'bce'))
    on_one('bce/jit', spec)
    for kind in KINDS:
        on_eight('bce', spec, kind)
    if mine(few=False):
        on_one('bce/accumulate', dataclasses.replace(spec, accumulate=4))
        return
    together = jax.jit(jax.vmap(functools.partial(step.train_step, spec), (0, 0, None, None)))
    stacked = [jax.tree.map(lambda *x: np.stack(x), *trees) for trees in (firsts, hypers)]
    found = jax.tree.map(lambda x: x[1], together(*stacked, batch, data))
    record('mixed/bce/vmap', outcome(*found))


def evaluations():
    split = digits.load('test')
    data = {'image': split.images, 'label': split.labels}
    # What is counted here is examples, so the network that compiles soonest will do.
    spec = spec_of('fcn')
    first = start_of('fcn', LANES[0])
    logits = spec.model.apply(first.variables(), (data['image'] / np.float32(255) - 0.1) / 0.3)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (data['label'], np.asarray(logits).argmax(-1)), 1)
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    loss = -log_p[np.arange(len(log_p)), data['label']].sum()
    sure, right = np.exp(log_p).max(-1), log_p.argmax(-1) == data['label']
    chosen = np.ceil(sure * calibration.BINS).astype(int) - 1
    bins = {'bin_count': np.ones(len(sure)), 'bin_correct': right, 'bin_confidence': sure}
    bins = {k: np.bincount(chosen, v, calibration.BINS) for k, v in bins.items()}
    record('eval/truth', {'confusion': confusion, 'loss': loss, **bins})

    for kind, devices in devices_here(DEVICES):
        runner = Runner(spec, kind, jax.devices()[:devices], detailed=True)
        placed, variables = runner.replicate(data), runner.replicate(first.variables())
        for size in EVAL_SIZES:
            total = {}
            for batch in plans.EvalPlan(len(data['label']), size, devices):
                sums, _ = runner.evaluate(variables, runner.split(batch), placed)
                sums = runner.fetch(sums)
                total = {k: total.get(k, 0) + v.astype(np.float64) for k, v in sums.items()}
            record(f'eval/{kind}{devices}/{size}', total)


def seen(runner, first, hyper, data, batch):
    state_, shared = runner.replicate(first), runner.replicate(hyper)
    _, metrics = runner.train(state_, shared, runner.split(batch), runner.replicate(data))
    return runner.fetch(metrics['seen'])


def randomness():
    """Dropout's masks and augmented images, as the network saw them."""
    pixels = (8, 8, 1)
    white = {'image': np.full((BATCH, *pixels), 255, np.uint8), 'label': np.arange(BATCH)}
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, *pixels)).astype(np.uint8)
    batch = batch_of(MASKS['full'])
    hyper = probe.hyper(5, shift=2.0, rotate=30.0, scale=0.2, **MIXING)
    spec = probe.spec(BATCH, augmentations=probe.applied('affine', *MIXED))
    here = devices_here(SOME, FEW_DRAWN)
    for kind, devices in [('pmap', 1), *here]:
        look = functools.partial(seen, Runner(spec, kind, jax.devices()[:devices]))
        found = look(probe.start(pixels), hyper, white | {'image': noise}, batch)
        RESULTS[f'augment/{kind}{devices}'] = found
    # What each is compared with is pmap's.
    for kind, devices in sorted({*here, *(('pmap', devices) for _, devices in here)}):
        look = functools.partial(seen, Runner(probe.spec(BATCH), kind, jax.devices()[:devices]))
        for name, seed, number in (('a', 5, 0), ('again', 5, 0), ('step', 5, 1), ('seed', 6, 0)):
            shared = probe.hyper(seed, dropout_rate=0.25)
            found = look(probe.start(pixels, number), shared, white, batch)
            RESULTS[f'dropout/{kind}{devices}/{name}'] = found


def compiled_step(data):
    """Compilations, transfers and donation over five steps with changing hyperparameters."""
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compilations.append(event)
        if event == '/jax/core/compile/backend_compile_duration' else None
    )  # fmt: skip
    for kind in kinds_here():
        runner = Runner(spec_of('fcn'), kind, jax.devices())
        placed = runner.replicate(data)
        now = runner.replicate(start_of('fcn', LANES[0]))
        hypers = [runner.replicate(hyper_of(LANES[i % 2] | {'seed': i})) for i in range(5)]
        batches = [runner.split(batch_of(MASKS['full'])) for _ in range(5)]
        given, counts = [], []
        for hyper, batch in zip(hypers, batches, strict=True):
            before = len(compilations)
            with jax.transfer_guard('disallow'):
                after, _ = runner.train(now, hyper, batch, placed)
            counts.append(len(compilations) - before)
            given.append(all(leaf.is_deleted() for leaf in jax.tree.leaves(now)))
            now = after
        kept = not any(leaf.is_deleted() for leaf in jax.tree.leaves((placed, hypers)))
        RESULTS[f'compiled/{kind}/compilations'] = np.array(counts)
        RESULTS[f'compiled/{kind}/donated'] = np.array(given)
        RESULTS[f'compiled/{kind}/kept'] = np.array(kept)
        # The guard is awake: a data set left on the host is refused.
        try:
            with jax.transfer_guard('disallow'):
                runner.train(now, hypers[0], batches[0], data)
            refused = False
        except jax.errors.JaxRuntimeError as error:
            refused = 'isallowed' in str(error)
        RESULTS[f'compiled/{kind}/refused'] = np.array(refused)


def several_updates(data):
    """Three updates in one call, with dropout and unequal shards, and the same one by one."""
    draw = np.random.default_rng(1)
    batches = [
        batch_of(mask) | {'index': draw.permutation(BATCH).astype(np.int32)}
        for mask in (MASKS['masked'], MASKS['full'], MASKS['masked'][::-1].copy())
    ]
    hyper = hyper_of(LANES[1]) | {'dropout_rate': np.float32(0.4)}
    for kind in kinds_here():
        runner = Runner(spec_of('fcn'), kind, jax.devices())
        placed, shared = runner.replicate(data), runner.replicate(hyper)
        now, found = runner.replicate(start_of('fcn', LANES[1])), []
        for batch in batches:
            now, metrics = runner.train(now, shared, runner.split(batch), placed)
            found.append(runner.fetch(metrics))
        stacked = jax.tree.map(lambda *x: np.stack(x), *found)
        record(f'several/{kind}/one', outcome(runner.fetch(now), stacked))
        first, many = runner.replicate(start_of('fcn', LANES[1])), runner.split_many(batches)
        with jax.transfer_guard('disallow'):
            after, metrics = runner.train_many(first, shared, many, placed)
        record(f'several/{kind}/many', outcome(runner.fetch(after), runner.fetch(metrics)))
        for name, program in (('one', runner.train), ('many', runner.train_many)):
            RESULTS[f'several/{kind}/aliases/{name}'] = aliases(program.compiled)
        RESULTS[f'several/{kind}/donated'] = np.array(
            [leaf.is_deleted() for leaf in jax.tree.leaves(first)]
        )
        RESULTS[f'several/{kind}/leaves'] = np.array(len(jax.tree.leaves(after)))


def aliases(compiled):
    """How many outputs the compiled program writes into the memory of its inputs."""
    header = compiled.as_text().partition('\n')[0]
    return np.array(header.count('may-alias') + header.count('must-alias'))


def main():
    global PART
    PART = sys.argv[2]
    assert jax.device_count() == max(DEVICES)
    # Noise, because digits have flat grounds: where max pooling has ties, rounding decides which
    # pixel gets the gradient. The 17th image is what padding points at.
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (BATCH + 1, 28, 28, 1)).astype(np.uint8)
    data = {'image': images, 'label': draw.integers(0, 10, BATCH + 1).astype(np.int32)}
    data['image'][BATCH] = 255
    updates(data)
    partitioned(data)
    mixtures(data)
    evaluations()
    randomness()
    compiled_step(data)
    several_updates(data)
    np.savez(sys.argv[1], **RESULTS)


if __name__ == '__main__':
    main()
