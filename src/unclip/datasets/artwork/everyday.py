"""Common objects: 265 of the 1,900 concepts of the artwork set, by their names in CLDR.

A model with little training time learns these well rather than all of them badly (`data.factors.everyday`).
"""

from collections.abc import Mapping
from typing import Any

EVERYDAY = frozenset((
    "cat", "cat face", "dog", "dog face", "panda", "fox", "bear", "koala", "lion", "tiger face", "monkey face", "monkey",
    "mouse face", "rabbit", "rabbit face", "pig", "pig face", "cow", "cow face", "horse", "horse face", "unicorn", "frog",
    "chicken", "baby chick", "penguin", "owl", "bird", "duck", "eagle", "parrot", "swan", "fish", "tropical fish",
    "dolphin", "whale", "spouting whale", "shark", "octopus", "crab", "turtle", "snake", "snail", "butterfly", "honeybee",
    "lady beetle", "spider", "elephant", "giraffe", "zebra", "ewe", "goat", "deer", "wolf", "raccoon", "hedgehog",
    "dragon", "dragon face", "T-Rex",
    "rose", "tulip", "sunflower", "cherry blossom", "deciduous tree", "evergreen tree", "palm tree", "Christmas tree",
    "cactus", "mushroom", "four leaf clover", "maple leaf", "seedling", "potted plant", "bouquet",
    "sun", "sun with face", "crescent moon", "full moon", "cloud", "rainbow", "snowflake", "snowman", "star", "glowing star",
    "fire", "droplet", "water wave", "high voltage", "volcano", "mountain", "ringed planet",
    "red apple", "green apple", "banana", "pear", "peach", "cherries", "strawberry", "grapes", "lemon", "tangerine",
    "watermelon", "pineapple", "kiwi fruit", "avocado", "tomato", "carrot", "broccoli", "ear of corn", "hot pepper",
    "eggplant", "potato", "bread", "croissant", "cheese wedge", "egg", "cooking", "hamburger", "french fries", "hot dog",
    "pizza", "sandwich", "taco", "sushi", "rice ball", "cookie", "doughnut", "birthday cake", "cupcake", "shortcake", "pie",
    "chocolate bar", "candy", "lollipop", "ice cream", "soft ice cream", "popcorn", "hot beverage", "teapot", "beer mug",
    "wine glass", "tropical drink",
    "automobile", "oncoming automobile", "racing car", "taxi", "bus", "delivery truck", "fire engine", "police car",
    "ambulance", "tractor", "bicycle", "motorcycle", "locomotive", "train", "airplane", "helicopter", "rocket",
    "flying saucer", "sailboat", "ship", "anchor",
    "house", "house with garden", "castle", "church", "tent", "ferris wheel",
    "soccer ball", "basketball", "american football", "baseball", "tennis", "guitar", "violin", "trumpet", "drum",
    "musical keyboard", "balloon", "wrapped gift", "party popper", "trophy", "crown", "ring", "gem stone", "glasses",
    "sunglasses", "top hat", "t-shirt", "dress", "running shoe", "high-heeled shoe", "backpack", "umbrella", "key", "locked",
    "light bulb", "candle", "open book", "pencil", "scissors", "hammer", "camera", "television", "laptop",
    "mobile phone", "watch", "alarm clock", "bell", "chair", "bed", "couch and lamp", "door", "robot", "ghost", "skull",
    "alien", "jack-o-lantern", "teddy bear", "artist palette", "game die", "kite", "bomb", "magnet",
    "red heart", "orange heart", "yellow heart", "green heart", "blue heart", "purple heart", "broken heart",
    "grinning face", "smiling face", "slightly smiling face", "grinning face with smiling eyes", "face with tears of joy",
    "smiling face with sunglasses", "smiling face with heart-eyes", "smiling face with hearts", "winking face",
    "face blowing a kiss", "thinking face", "neutral face", "crying face", "loudly crying face", "angry face",
    "enraged face", "sleeping face", "nerd face", "partying face", "star-struck", "face with tongue", "clown face",
    "person", "man", "woman", "boy", "girl", "baby", "astronaut", "police officer", "thumbs up", "waving hand", "eye",
))  # fmt: skip


def is_everyday(meta: Mapping[str, Any]) -> bool:
    """Whether a sample of the artwork set shows common objects only, by its metadata."""
    return all(label in EVERYDAY for label in str(meta.get("label", "")).split(" + "))
