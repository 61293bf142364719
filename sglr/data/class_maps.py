"""Asymmetric label noise: which class is mistaken for which, on the data sets where there is a custom."""

# Patrini et al. 2017 (arXiv 1609.03683): truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.
CIFAR10 = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}

# Superclasses of CIFAR-100, from the data set's page (https://www.cs.toronto.edu/~kriz/cifar.html).
CIFAR100_SUPERCLASSES = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

# The fine labels of the official files number the class names in alphabetical order.
CIFAR100_CLASSES = tuple(sorted(name for group in CIFAR100_SUPERCLASSES.values() for name in group))


def _next_within_superclass() -> dict[int, int]:
    number = {name: index for index, name in enumerate(CIFAR100_CLASSES)}
    groups = [sorted(number[name] for name in group) for group in CIFAR100_SUPERCLASSES.values()]
    return {this: group[(place + 1) % len(group)] for group in groups for place, this in enumerate(group)}


# Patrini et al. 2017: each class becomes the next of its superclass, in a circle. Much copied code instead takes blocks
# of five consecutive fine labels for superclasses, which they are not.
CIFAR100 = _next_within_superclass()
