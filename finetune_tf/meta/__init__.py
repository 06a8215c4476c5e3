"""Meta-learning: networks that learn new classes from a few examples, measured in episodes.

Example:
    train, test = ft.meta.split_classes(examples, test=0.25)
    learner = ft.meta.Prototypes(model)
    learner.fit(train, ways=5, shots=1, episodes=500)
    print(learner.evaluate(test, ways=5, shots=1))
    classifier = learner.adapt(a_few_examples_of_new_classes)
    classifier.predict(["…"])
"""

from finetune_tf.meta.adapted import Adapted
from finetune_tf.meta.episodes import Episode, Episodes, episodes, split_classes
from finetune_tf.meta.maml import MAML
from finetune_tf.meta.prototypes import Prototypes
from finetune_tf.meta.reptile import Reptile
from finetune_tf.meta.results import EpisodeReport

__all__ = [
    "MAML",
    "Adapted",
    "Episode",
    "EpisodeReport",
    "Episodes",
    "Prototypes",
    "Reptile",
    "episodes",
    "split_classes",
]
