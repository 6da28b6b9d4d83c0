r"""An answer in one notation, and its unit: what the grader does to a text before it compares.

Unicode, markup, separators, mixed numbers, `0.\overline{3}` and `2e5` become plain LaTeX. Only the standard library.
"""

import re
import unicodedata
from collections import Counter

GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}"  # braces, with others four deep in them
INNER = r"((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)"
ORDINAL = r"(?:st|nd|rd|th|\\text\s*\{\s*(?:st|nd|rd|th)\s*\})"
TRIGONOMETRIC = r"\\(?:sin|cos|tan|cot|sec|csc)(?:\s*\^\s*\{?\s*\d+\s*\}?)?"
NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"

LATEX = {
    "∞": r"\infty ", "°º": r"^{\circ}", "×✕": r"\times ", "·∙⋅•": r"\cdot ", "÷": r"\div ", "∗": "*", "∕": "/",
    "≤⩽≦": r"\le ", "≥⩾≧": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ",
    "∩": r"\cap ", "∈": r"\in ", "∉": r"\notin ", "∅⌀": r"\emptyset ", "∣": r"\mid ", "∨": r"\lor ", "∧": r"\land ",
    "∠": r"\angle ", "△": r"\triangle ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}", "ℂ": r"\mathbb{C}",
    "⟨〈": r"\langle ", "⟩〉": r"\rangle ", "−–—‐‑‒―": "-", "∶": ":", "、": ",", "。": ".", "’‘′": "'", "“”": '"',
}  # fmt: skip
CHARACTERS = {ord(one): latex for several, latex in LATEX.items() for one in several}
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}


def _ascii(text: str) -> str:
    """Unicode as LaTeX: `3½` is `3\\frac{1}{2}`, `x²` is `x^{2}`, a full-width digit is a digit."""
    nfkc = unicodedata.normalize
    text = re.sub(r"((?:\d[\u0304\u0305])+)", lambda m: rf"\overline{{{re.sub('[^0-9]', '', m[1])}}}", text)
    text = re.sub("[⁰ⁱ⁴-⁻ⁿ¹²³]+", lambda m: f"^{{{nfkc('NFKC', m[0])}}}", text)  # NFKC alone makes an x2 of x²
    text = re.sub("[₀-₋]+", lambda m: f"_{{{nfkc('NFKC', m[0])}}}", text)
    text = re.sub("[¼-¾⅐-⅞↉]", lambda m: r"\frac{{{}}}{{{}}}".format(*nfkc("NFKC", m[0]).split("⁄")), text)
    text = re.sub(
        r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[^\W\d_]))",
        lambda m: f"{ROOTS[m[1]]}{{{m[2] or m[3] or m[4] or ''}}}",
        text,
    )
    text = nfkc("NFKC", text.translate(CHARACTERS)).translate(CHARACTERS | {ord("⁄"): "/"})
    text = re.sub(r"\d", lambda m: str(unicodedata.decimal(m[0])), text)  # of every script
    return "".join(" " if one.isspace() else one for one in text if unicodedata.category(one) != "Cf")


SPACE = re.compile(
    r"(\\\\)|(\\!\s*)|\\[()\[\]]|\\[,;:> ]|~|\\(?:q?quad|(?:thin|med|thick|en)space)(?![a-zA-Z])\s*"
    r"|\\[hv]space\*?\{[^{}]*\}"
)
REWRITES = [
    # markup
    (r"\\(?:boxed|fbox|underline|uline|ensuremath|boldsymbol|bm|pmb|math(?:bf|it|sf|tt|normal))\s*" + GROUP, r" \1"),
    (rf"\\(?:(?:text)?color|colorbox|fcolorbox\s*\{{[^{{}}]*\}})\s*(?:\[\w*\])?\{{[^{{}}]*\}}\s*(?:{GROUP})?", r" \1"),
    (r"\\(?:(?:display|text|script)style|bf(?:series)?|it|rm|tiny|small|[lL]arge|LARGE|[hH]uge)(?![a-zA-Z])", ""),
    (r"\\(?:text(?:bf|it|sf|tt|rm|up|normal)|mathrm|emph|[mh]box)\s*(?=\{)", r"\\text"),
    (r"\\text\s*\{([^{}a-zA-Z]*|[eidT])\}", r"\1"),  # numbers and constants are no text
    (r"</?(?:b|i|u|em|strong)>", ""),
    (r"\\(?:left|right|[bB]igg?[lrm]?)(?=\s*(?:[()\[\]|]|\\[{}|]))", ""),
    # one way to write a thing
    (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
    (r"\\pounds(?![a-zA-Z])", "£"),
    (r"\\euro(?![a-zA-Z])", "€"),
    (r"\\(?:colon|ratio)(?![a-zA-Z])|\{:\}", ":"),
    (r"\{,\}", ","),
    (r"\\langle(?![a-zA-Z])", "("),
    (r"\\rangle(?![a-zA-Z])", ")"),
    (r"\\varnothing|\\\{\s*\\\}", r"\\emptyset"),
    (rf"(?:\{{|^){INNER}\\(?:over|(choose))(?![a-zA-Z]){INNER}(?:\}}|$)", lambda m: _stacked(m)),
    (rf"({TRIGONOMETRIC}\s*[({{]?\s*)({NUMBER})\s*\^\s*(?:\\circ|\{{\s*\\circ\s*\}})", r"\1{\\frac{\2\\pi}{180}}"),
    (r"\\[lc]?dots[bcmio]?(?![a-zA-Z])", "..."),
    (r"(?i)(?<![a-z\\])(?:infinity|infty|inf)(?![a-z])", r"\\infty "),
    (r">=|\\geqslant|\\geqq", r"\\ge "),
    (r"<=|\\leqslant|\\leqq", r"\\le "),
    (r"^(\\(?:[gl]eq?|[gl]t)(?![a-zA-Z])|[<>])", r"x\1"),  # a relation without its left side
    (r"(^|\\cup\s*)\](?=[^\[\]]*,)", r"\1("),  # ]0,1[
    (r"\[(?=\s*(?:$|\\cup))", ")"),
    (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
    (r"\\(angle|triangle)\s*([A-Z]{2,})", r"\\text{\1 \2}"),  # no product of lengths
    (r"(?<![a-zA-Z\\])pi(?![a-zA-Z])", r"\\pi "),
    (r"(?<=[\w)}])\*\*(?=[\w({-])", "^"),
    (r"^([^'\"]*\d)\s*(?:''|\")$", r"\1\\text{ inches}"),
    (r"^([^'\"]*\d)\s*'$", r"\1\\text{ feet}"),
    (r"\\(?:approx|sim|simeq|doteq)(?![a-zA-Z])", "="),
    (r"^([^=<>\\]+)=\s*([a-zA-Z])$", r"\2=\1"),
    (r"^\\\{\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|\||:)(.+)\\\}$", r"\1"),  # {x | x > 5}
    # numbers
    (rf"(?<![\w.}}])({NUMBER})[eE]([+-]?\d+)(?![\w.])", r"\1\\times10^{\2}"),
    (r"(\d)\s*[xX*]\s*10\s*\^", r"\1\\times10^"),
    (r"\^\s*([+-]?\d+)", r"^{\1}"),
    (r"(?<![\w.,])(\d{1,3})((?:[ _]\d{3})+)(?![\w/])", lambda m: m[1] + re.sub("[ _]", "", m[2])),
    (r"(?<![\d.}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
    (r"(\d*)\.(\d*)(?:\\(?:overline|bar)\s*\{?|\()(\d{1,40})(?:\}|\)|$)", lambda m: _repeating(*m.groups())),
    (r"(\d*)\.(\d*)(\\dot\s*\{?\d\}?\d{0,40}(?:\\dot\s*\{?\d\}?)?)", lambda m: _repeating(*m.groups())),
    (r"(\d)\s*(\\text\s*\{\s*)?(thousand|million|billion|trillion)(?![a-z])", lambda m: _scaled(*m.groups())),
    (rf"(?<=\d)\s*\^?\s*(?:{ORDINAL}|\{{\s*{ORDINAL}\s*\}})$", ""),
    (r"(?<=\d)_\{?\(?10\)?\}?$", ""),  # to base ten
    # ends
    (r"(?<!\.)(?:[\s,;:]|\.(?!\.))+$|^[\s=:]+|\\+$", ""),  # but not of `0.33...`
    (r"(?i)^\\text\s*\{[^{}]*\b(?:answer|is|are|equals|about|approximately|roughly)\b[^{}a-z]*\}(?=.)", ""),
    (r"^(\*\*|__|\*|`|\"|')(.+)\1$", r"\2"),
    (rf"^(?!.*,){GROUP}$", r"\1"),
    (r"^\\text\s*\{\s*([^{}]*[\d(.,:][^{}]*|[A-Za-z])\s*\}$", r"\1"),
]
REWRITES = [(re.compile(pattern, re.DOTALL), replacement) for pattern, replacement in REWRITES]


def _repeating(whole: str, start: str, period: str) -> str:
    """The fraction that a repeating decimal is: `0.1\\overline{6}` is (16 - 1) / 90."""
    period = re.sub(r"\D", "", period)
    top = int(whole + start + period) - int(whole + start or "0")
    return rf"\frac{{{top}}}{{{10 ** len(start) * (10 ** len(period) - 1)}}}"


def _stacked(match: re.Match) -> str:
    """`{1 \\over 2}` as a fraction, in braces for a root or a power before it, but bare behind a whole number."""
    stacked = rf"\{'binom' if match[2] else 'frac'}{{{match[1]}}}{{{match[3]}}}"
    return stacked if match.string[: match.start()][-1:].isdigit() else f"{{{stacked}}}"


def _scaled(digit: str, opened: str | None, word: str) -> str:
    power = 3 * (1 + ["thousand", "million", "billion", "trillion"].index(word))
    return rf"{digit}\times10^{{{power}}}{opened or ''}"


def normal(text: str) -> str:
    """An answer in one notation. Applied until it stays, for markup may stand within markup."""
    text = text if text.isascii() else _ascii(text)
    for _ in range(8):
        before = text
        text = re.sub(r"\s+", " ", SPACE.sub(lambda m: m[1] or ("" if m[2] else " "), text))
        dollars = re.findall(r"(?<!\\)\$", text)
        text = re.sub(r"(?<!\\)\$", r"\\$" if len(dollars) == 1 else "", text)  # one is money, two are mathematics
        for pattern, replacement in REWRITES:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return text


# --- units

ABBREVIATIONS = set(
    "m g s L l N J W V C F K cm mm km nm in ft yd mi kg mg lb lbs oz ml mL cc gal hr hrs h min sec ms mph kph deg rad "
    "USD EUR GBP day men cup pt qt sq cu Hz kHz MHz Pa kPa kW kWh".split()
)
NO_UNIT = set(
    "or and to mod base at least most over under above below about than not no more less fewer approximately million "
    "tenths hundredths thousandths millionths thirds fourths fifths sixths sevenths eighths ninths tens hundreds "
    "thousands dozen squared cubed factorial choose hundred half halves sqrt frac if when where "
    "january february march april may june july august september october november december".split()
)
SAME = {
    "dollar": "$", "usd": "$", "euro": "€", "eur": "€", "pounds": "£", "gbp": "£", "yen": "¥", "rupee": "₹",
    "percent": "%", "percentage": "%", "pct": "%", "metre": "m", "meter": "m", "centimetre": "cm", "centimeter": "cm",
    "millimeter": "mm", "millimetre": "mm", "kilometer": "km", "kilometre": "km", "inch": "in", "inche": "in",
    "feet": "ft", "foot": "ft", "yard": "yd", "mile": "mi", "gram": "g", "kilogram": "kg", "kilo": "kg", "lb": "pound",
    "ounce": "oz", "liter": "L", "litre": "L", "l": "L", "milliliter": "mL", "ml": "mL", "hour": "h", "hr": "h",
    "minute": "min", "second": "s", "sec": "s", "deg": "degree", "radian": "rad", "celsius": "C", "fahrenheit": "F",
    "gallon": "gal", "people": "person", "men": "man", "women": "woman", "children": "child",
}  # fmt: skip
FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|csc|log|exp)[a-z]{0,2}\b")
TEXT = r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
POWER = r"(?:\s*\^\s*(?:-?\d+|\{\s*-?\d+\s*\}))?"
DEGREE = r"\^\s*\{?\s*\\circ\s*\}?"
MARK = r"\\?%|\\\$|[€£¥₹₩¢]"
UNIT = re.compile(
    rf"(?P<value>.*?[\w)}}])\s*(?P<unit>(?:{DEGREE}\s*(?:{TEXT}|[CFK])?|{MARK}|(?:\s*(?:(?:/|\\cdot)\s*)?{TEXT}{POWER})+"
    rf"|\s*[A-Za-z][A-Za-z./ ]*{POWER})(?:\s*(?:{MARK}))?)",
    re.DOTALL,
)
MONEY = re.compile(r"([+-]?)\s*(?:US\s*)?(\\\$|[€£¥₹₩]|USD|EUR|GBP)\s*([-+]?[\d.].*)", re.DOTALL)


def split(text: str) -> tuple[str, Counter[str]]:
    r"""An answer's value and its unit as powers: `12\text{ m/s}` is `12`, m¹ s⁻¹. There may be no unit."""
    if money := MONEY.fullmatch(text):
        text = money[1] + money[3] + money[2]
    found = UNIT.fullmatch(text)
    if not found:
        return text, Counter()
    value, unit = found["value"], found["unit"]
    words = re.findall(r"/|[^\W\d_]+|[%$€£¥₹₩¢]", _spelled(unit))
    if NO_UNIT & {word.lower() for word in words}:
        return text, Counter()
    if "\\text" not in unit and not re.fullmatch(MARK, unit):  # letters may be variables
        names = all(word in ABBREVIATIONS or len(word) > 3 or not word.isalpha() for word in words if word != "per")
        touching = len(words[0]) == 1 and text[len(value)] == words[0]  # `5m`, unlike `5 m`
        letters = re.search(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", value.rpartition("=")[2]))
        if not names or touching or letters or value[-1].isalpha() or FUNCTION.search(unit):
            return text, Counter()
    return value, _powers(_spelled(unit))


def _spelled(unit: str) -> str:
    unit = re.sub(DEGREE, " degree ", re.sub(TEXT, r"\1", unit))
    unit = unit.replace("percentage points", "percent")
    return unit.replace("mph", "miles/hour").replace("kph", "km/hour")


def _powers(unit: str) -> Counter[str]:
    """Each word's power. `unit` alone is no unit: it is left out as often as not."""
    powers, sign, power = Counter(), 1, 1
    for word, exponent in re.findall(r"(/|[^\W\d_]+|[%$€£¥₹₩¢])(?:\s*\}?\s*\^\s*\{?\s*(-?\d+))?", unit):
        word = word if len(word) == 1 else word.lower()
        if word in ("/", "per"):
            sign = -1
        elif word in ("square", "sq", "cubic", "cu"):
            power = 2 if word[0] == "s" else 3
        else:
            single = word.removesuffix("s") if len(word) > 3 else word
            powers[SAME.get(word) or SAME.get(word.removesuffix("s"), single)] += sign * power * int(exponent or 1)
            sign = power = 1
    return powers if set(powers) != {"unit"} else Counter()


def plain(text: str) -> str:
    r"""Without `\text`."""
    return re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip()
