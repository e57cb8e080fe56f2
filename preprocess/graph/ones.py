"""Repairs of "one" and "another": what is said of each belongs to the noun that they stand for."""

from typing import NamedTuple

from macco.preprocess.graph.lexicon import BE, QUANTITIES
from macco.preprocess.graph.words import Sentence, Word

ONES = ("one", "ones")
OTHERS = ("other", "another", "others")
LINKS = ("and", ",", ";", ":", "-", "–", "—", "while", "but", "with")


class Member(NamedTuple):
    """One of several, "one of them red and small" or "another with": its places [start, end), and what is told of it.

    said: its adjectives, which end the member, or the preposition or participle behind it
    """

    start: int
    end: int
    one: Word
    said: list[Word]


def tell_apart(sentence: Sentence) -> None:
    """In "two dogs, one black and one with a ball" both are said of the dogs, though of no dog both."""
    words = sentence.words
    if not any(word.form in (*OTHERS, *ONES) or word.pos == "NUM" for word in words[1:]):
        return
    members: list[Member] = []
    i = 1
    while i < len(words):
        if member := _member(words, i):
            members.append(member)
        i = member.end if member else i + 1
    if members and (noun := _antecedent(words, members)):
        _share_out(sentence, noun, members)
    _stand_for(sentence)


def _member(words: list[Word], i: int) -> Member | None:
    """ "one black", "the other is small and white" or "another with" at this place, with no noun behind."""
    start = i
    i += words[i].form == "the"
    if i + 1 >= len(words) or not (words[i].pos == "NUM" or words[i].form in (*OTHERS, "some")):
        return None
    one = words[i]
    i += 3 if [word.form for word in words[i + 1 : i + 3]] == ["of", "them"] else 1
    i += i + 1 < len(words) and (words[i].form in BE or words[i].form == "being")
    if i >= len(words):
        return None
    if words[i].pos == "ADJ":
        said = [words[i]]
        i += 1
        while _adjective(words, i + 1) and words[i].form in ("and", ","):
            said.append(words[i + 1])
            i += 2
        return Member(start, i, one, said) if _adjective(words, said[-1].i) else None
    says = (words[i].pos == "ADP" and words[i].form != "of") or (
        words[i].pos == "VERB" and words[i].form.endswith("ing")
    )
    if says and i + 1 < len(words) and words[start - 1].form in LINKS:
        return Member(start, i, one, [words[i]])
    return None


def _adjective(words: list[Word], i: int) -> bool:
    """Whether an adjective stands here with no noun behind."""
    if i >= len(words) or words[i].pos != "ADJ" or words[i].form in OTHERS:
        return False
    return i + 1 == len(words) or words[i + 1].pos not in ("NOUN", "PROPN", "ADJ")


def _antecedent(words: list[Word], members: list[Member]) -> Word | None:
    """The noun that these are of: the last plural, best a counted one, or in "one man ... and another" the man."""
    first = members[0]
    before = [word for word in reversed(words[: first.start]) if word.is_noun]
    several = [word for word in before if word.form != word.lemma_]
    if several and (len(members) > 1 or words[first.one.i + 1].form == "of"):
        return next((word for word in several if _counted(words, word)), several[0])
    if first.one.form in ("other", "another") and words[first.start - 1].form in LINKS:
        single = next((word for word in before if any(kid.form == "one" for kid in word.kids)), None)
        return single or next((word for word in before if _has_too(word, first)), None)
    return None


def _has_too(noun: Word, member: Member) -> bool:
    """Whether in "a woman in a red hat and another in a green hat" the other is in something as this one is."""
    article = any(kid.form in ("a", "an") for kid in noun.kids)
    before = (kid for kid in noun.kids if kid.dep_ == "prep" and kid.i < member.start)
    return article and any(kid.form == member.said[0].form for kid in before)


def _counted(words: list[Word], noun: Word) -> bool:
    return any(kid.pos == "NUM" for kid in noun.kids) or (
        noun.head.form == "of" and noun.head.head.form in QUANTITIES
    )


def _share_out(sentence: Sentence, noun: Word, members: list[Member]) -> None:
    words = sentence.words
    rows: list[list[Word]] = []
    end = -1
    for member in members:
        if rows and all(word.form in (",", "and") for word in words[end : member.start]):
            rows[-1] += words[end : member.end]
        else:
            rows.append(words[member.start : member.end])
        end = member.end
    for row in rows:
        _clear(noun, row)
    if noun.form == noun.lemma_:  # one dog is black and the other is white
        own = [*noun.kids, *(noun.head.kids if noun.dep_ == "nsubj" else ())]
        sentence.apart.update(kid.i for kid in own if kid.dep_ in ("amod", "acomp"))
    for member in members:
        for word in member.said:
            if word.i >= member.end:
                word.attach(noun, "prep" if word.pos == "ADP" else "acl")
            else:
                word.dep_ = "amod"
                sentence.apart.add(word.i)


def _clear(noun: Word, row: list[Word]) -> None:
    """Hang the words of a row below the noun, out of sight, and what hung on them as well."""
    if any(noun.within(word) for word in row):  # the parser made one of them the head of all
        top = next(word for word in row if noun.within(word))
        while top.head in row and top.head is not top:
            top = top.head
        below = noun  # "figures" of "a number of figures" goes along with the number
        while below.head not in row:
            below = below.head
        below.replace(top)
    for word in row:
        for kid in [kid for kid in word.kids if kid not in row and kid is not noun]:
            kid.attach(noun, kid.dep_)
    for word in row:
        word.attach(noun, "punct")
        word.dep_ = "punct"


def _stand_for(sentence: Sentence) -> None:
    """In "a white dog and another black one" the dogs are black and white; in "a black one" behind "two dogs" too."""
    words = sentence.words
    for one in words[1:]:
        after = words[one.i + 1] if one.i + 1 < len(words) else one
        if one.form == "other" and one.dep_ == "amod" and after.form in ("a", "an"):
            for word in words[one.i - 1 : one.i + 1]:  # one eating an apple and the other a banana
                word.dep_ = "punct"
        if one.form in OTHERS and one.dep_ in ("pobj", "dobj") and one.pos in ("ADJ", "NOUN"):
            one.pos_ = "PRON"  # one on top of the other
        adjectives = [
            kid for kid in one.kids if kid.dep_ == "amod" and kid.i < one.i and kid.form not in OTHERS
        ]
        if one.form not in ONES or one.pos != "NOUN" or not adjectives or one.kid("poss"):
            continue
        first = one.head  # "next to a black one" is another thing, as is what stands in a row with it
        if first is not one and not (first.is_noun and first.form not in ONES) and first.pos_ != "PRON":
            continue
        before = [word for word in reversed(words[: one.i]) if word.is_noun]
        noun = next((word for word in before if _counted(words, word) and word.form != word.lemma_), None)
        noun = noun or next((word for word in before if one.within(word)), None)
        if noun is None:
            continue
        if noun.form == noun.lemma_:
            sentence.apart.update(kid.i for kid in noun.kids if kid.dep_ == "amod")
        one.pos_ = "PRON"
        sentence.antecedents[one.i] = noun.i
        for adjective in adjectives:
            adjective.attach(noun, "amod")
            sentence.apart.add(adjective.i)
            for kid in adjective.kids:
                if kid.dep_ == "conj" and kid.pos == "ADJ":
                    sentence.apart.add(kid.i)
