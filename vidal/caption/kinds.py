"""Kinds of things above the 1000 classes of ImageNet: a classifier is often sure of a cat and unsure of its breed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

# Numbers of classes in ImageNet's order, in which animals come first and kinds of animals mostly stand together.
_KINDS = {
    "animal": "0-397",
    "fish": "0-6 389-397",
    "shark": "2-4",
    "ray": "5-6",
    "bird": "7-24 80-100 127-146",
    "grouse": "80-83",
    "parrot": "87-90",
    "salamander": "25-29",
    "frog": "30-32",
    "reptile": "33-68",
    "turtle": "33-37",
    "lizard": "38-48",
    "snake": "52-68",
    "spider": "72-77",
    "mollusk": "112-117",
    "crustacean": "118-126",
    "crab": "118-121",
    "insect": "300-326",
    "beetle": "300-307",
    "butterfly": "321-326",
    "mammal": "101-106 147-299 330-388",
    "whale": "147-148",
    "dog": "151-268",
    "wolf": "269-271",
    "fox": "277-280",
    "cat": "281-285",
    "wild cat": "286-293",
    "bear": "294-297",
    "rabbit or hare": "330-332",
    "rodent": "333-338",
    "pig": "341-343",
    "antelope": "351-353",
    "primate": "365-384",
    "ape": "365-369",
    "monkey": "370-382",
    "elephant": "385-386",
    "guitar": "402 546",
    "piano": "579 881",
    "musical instrument":
        "401-402 420 432 486 494 513 541 546 558 566 577 579 593-594 641-642 683-684 687 699 776 822 875 881 889",
    "vehicle":
        "403-405 407 417 436 444 450 466 468 472 484 510-511 537 547 554-555 561 565 569 573 575-576 586 603 609 612 "
        "625 627-628 654 656 661 665 670-671 675 690 705 717 724 734 751 757 779-780 802-803 812 814 817 820 829 833 "
        "847 864 866-867 870-871 874 880 895 914",
    "car": "407 436 468 511 609 627 656 661 751 817",
    "truck": "555 569 675 717 864 867",
    "bus": "654 779 874",
    "bicycle": "444 671",
    "airplane": "404 895",
    "boat or ship": "403 472 484 510 554 576 625 628 724 780 814 833 871 914",
    "locomotive": "547 820",
    "missile": "657 744",
    "gun": "413 763-764",
    "screen": "664 782 851",
    "computer": "527 590 620",
    "telephone": "487 528 707",
    "clock": "409 530 892",
    "cup": "504 968",
    "bottle": "440 720 737 898 907",
    "garment":
        "399-400 411 445 459 474 501 568 578 601 608 610 614 617 638-639 652 655 689 697 735 775 824 834 841-842 "
        "869 887 906",
    "hat": "433 439 452 515 667 793 808",
    "helmet": "518 560 715",
    "shoe": "502 514 630 770 774",
    "ball": "429-430 522 574 722 768 805 852 890",
    "building": "425 449 483 497 580 663 668 698 727 743 832 915",
    "bridge": "821 839 888",
    "fence": "489 716 912",
    "piece of furniture": "423 453 493 495 516 520 526 532 548 559 564 765 831 857 894",
    "vegetable": "936-946",
    "fruit": "948-957",
    "food": "924-957 959-967 969",
    "drink": "966-967 969",
    "mushroom": "947 991-997",
    "flower": "985-986",
    "mountain": "970 980",
    "person": "981-983",
}  # fmt: skip


@functools.cache
def kinds() -> Mapping[str, frozenset[int]]:
    """Return the classes of each kind, the kinds with the fewest first."""
    classes = {}
    for kind, spans in _KINDS.items():
        ends = (span.partition("-") for span in spans.split())
        classes[kind] = frozenset(n for first, _, last in ends for n in range(int(first), int(last or first) + 1))
    return MappingProxyType(dict(sorted(classes.items(), key=lambda item: len(item[1]))))
