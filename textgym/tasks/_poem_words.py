"""The words of TextGen-Poem-v0: what lines of four iambs are made of."""

from __future__ import annotations

# What each kind of thing does: x /. The plural drops the s.
DEEDS = {
    "vessel": ("drifts out", "sails on", "rolls by", "sails home"),
    "vehicle": ("rolls on", "speeds by", "runs down", "turns round"),
    "animal": ("walks out", "runs on", "waits long", "comes home", "sleeps well"),
    "bird": ("flies out", "calls out", "sings loud", "flies home", "turns round"),
    "person": ("walks out", "sings low", "waits long", "comes home", "stands still"),
    "light": ("shines out", "burns low", "gleams bright", "shines down"),
    "plant": ("grows tall", "stands still", "bends low"),
    "weather": ("drifts on", "moves out", "comes down", "turns round"),
    "water": ("runs on", "flows down", "rolls by", "sings low"),
}
PLURAL_DEED = {"flies": "fly"}
PLURAL_THING = {"man": "men", "leaf": "leaves", "wolf": "wolves", "deer": "deer", "fish": "fish", "sheep": "sheep"}

# Things of one syllable by topic, singular and plural.
TOPICS = {
    "the sea": {"boat": "vessel", "ship": "vessel", "wave": "water", "gull": "bird", "seal": "animal", "storm": "weather"},
    "the woods": {"deer": "animal", "owl": "bird", "bird": "bird", "tree": "plant", "leaf": "plant", "bear": "animal"},
    "the night": {"star": "light", "owl": "bird", "cat": "animal", "lamp": "light", "cloud": "weather", "dream": "weather"},
    "the town": {"man": "person", "girl": "person", "train": "vehicle", "car": "vehicle", "lamp": "light", "dog": "animal"},
    "the garden": {"bee": "bird", "bird": "bird", "plant": "plant", "cat": "animal", "girl": "person", "bud": "plant"},
    "the hills": {"goat": "animal", "sheep": "animal", "hawk": "bird", "cloud": "weather", "stream": "water", "boy": "person"},
    "winter": {"wolf": "animal", "crow": "bird", "storm": "weather", "boy": "person", "sled": "vehicle", "flame": "light"},
    "spring": {"lamb": "animal", "lark": "bird", "bud": "plant", "stream": "water", "girl": "person", "cloud": "weather"},
    "the farm": {"cow": "animal", "hen": "animal", "cart": "vehicle", "man": "person", "crow": "bird", "lamb": "animal"},
    "the river": {"boat": "vessel", "swan": "bird", "duck": "bird", "fish": "animal", "wave": "water", "raft": "vessel"},
    "home": {"cat": "animal", "dog": "animal", "boy": "person", "lamp": "light", "friend": "person", "plant": "plant"},
    "a walk": {"dog": "animal", "friend": "person", "bird": "bird", "stream": "water", "cloud": "weather", "tree": "plant"},
}  # fmt: skip
LOOKS = "little silver lonely quiet golden gentle hungry happy weary early pretty distant".split()  # / x
SEEN = ("I see", "We watch", "I hear", "They meet", "I know", "We miss")  # x /
JOINTS = ("and", "while", "where", "as")  # x

# Families of endings that rhyme with each other: x / x /.
FAMILIES: tuple[tuple[str, ...], ...] = (
    ("across the bay", "along the way", "upon the hay", "above the clay", "and far away", "again today", "by night and day"),
    ("into the night", "without a light", "and out of sight", "beyond the height", "again tonight", "so fast and bright"),
    ("across the snow", "along the row", "beyond the glow", "and far below", "without a foe", "so soft and slow"),
    ("across the sea", "beneath the tree", "so wild and free", "along with me", "around the bee", "as we can see"),
    ("beyond the hill", "behind the mill", "upon the sill", "so soft and still", "against my will", "without a thrill"),
    ("without the rain", "along the lane", "across the plain", "behind the train", "once more again", "among the grain"),
    ("beneath the moon", "beyond the dune", "all afternoon", "to hum a tune", "in early June", "and very soon"),
    ("upon the stone", "behind the throne", "and all alone", "against the bone", "that I have known", "above the cone"),
    ("behind the wall", "along the hall", "before the fall", "and not at all", "to hear the call", "beside the stall"),
    ("beside the fold", "around the gold", "against the cold", "so brave and bold", "as we were told", "and now is old"),
    ("among the sheep", "above the deep", "along the steep", "as if in sleep", "beside the heap", "for us to keep"),
    ("along the shore", "behind the door", "across the floor", "as once before", "and then once more", "beside the store"),
    ("against the tide", "along the side", "beside the bride", "without a guide", "so deep and wide", "to run and hide"),
    ("upon the ground", "without a sound", "above the mound", "and all around", "as if unbound", "and never found"),
    ("across the lake", "without a brake", "behind the rake", "beside the stake", "and wide awake", "for its own sake"),
    ("along the stream", "beneath the beam", "as in a dream", "behind the gleam", "above the cream", "among the team"),
    ("across the park", "into the dark", "below the lark", "beside the bark", "without a mark", "above the ark"),
    ("along the street", "across the wheat", "in all this heat", "on tired feet", "so soft and sweet", "beside the seat"),
    ("into the air", "along the stair", "across the square", "beside the chair", "with all its care", "and everywhere"),
    ("across the green", "behind the screen", "and all unseen", "above the scene", "around the queen", "so fresh and clean"),
    ("beside the pine", "along the line", "around the vine", "beneath the sign", "in bright sunshine", "so proud and fine"),
    ("in early spring", "upon the wing", "around the ring", "beside the king", "along the string", "and hear me sing"),
    ("above the town", "beside the crown", "without a frown", "and up and down", "so soft and brown", "behind the clown"),
    ("beside the book", "along the brook", "around the nook", "behind the cook", "above the hook", "for one last look"),
)  # fmt: skip

FUNCTION_WORDS = frozenset(
    """a all am among an and any are around as at be been before behind below beneath beside between beyond but by can could did
    do does down each for from had has have he her here him his i if in into is it its may me might my near no nor not now of
    off on once or our out over past shall she should so some than that the their them then there these they this those through
    to too under up upon us very was we were what when where which while who will with without would yet you your above across
    after again against along""".split()
)
