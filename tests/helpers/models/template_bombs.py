"""Templates that cost gigabytes or minutes in a few characters, each by another way around a budget of steps.

`BOMBS` maps a name to a whole template: nineteen as they were found, and four of the same kinds whose way is another one. All grow
linearly, or twice a level, to any size; here they are so large that none comes to its end within seconds and 2 GiB. They need no
variable; `strftime_now` is there in chat templates alone, where a run has a date.
"""

from collections.abc import Mapping
from typing import Final

_LISTS: Final = (
    "{% set ns=namespace(a=[1],b=[1]) %}"
    "{% for i in range(40) %}{% set ns.a=[ns.a,ns.a] %}{% set ns.b=[ns.b,ns.b] %}{% endfor %}"
)
_TUPLES: Final = "{% set ns=namespace(a=(1,)) %}{% for i in range(40) %}{% set ns.a=(ns.a,ns.a) %}{% endfor %}"

BOMBS: Final[Mapping[str, str]] = {
    "tests are not charged": _LISTS + "{{ ns.a is eq ns.b }}",
    "subscripts hash": _TUPLES + "{{ {}[ns.a] is defined }}",
    "round": "{{ 1|round(20000000, 'ceil') }}",
    "big division": "{{ (('f'*30000000)|int(0,16) // ('f'*3000000)|int(0,16)) is odd }}",
    "sum of lists": "{{ ([[1]]*400000)|sum(start=[])|length }}",
    "wordwrap": "{{ ('x'*4000000)|wordwrap(1)|length }}",
    "list methods": "{% set b=[1]*3000000 %}{% for i in range(6000) %}{% set x=b.count(2) %}{% endfor %}",
    "printing a list of long texts": "{{ ['x'*1000000] * 400 }}",
    "printing shared lists": _LISTS + "{{ ns.a }}",
    "percent format repeated": "{{ ('%9999d' * 50000) % ((1,)*50000) }}",
    "brace format repeated": "{{ ('{0:9999}' * 50000).format(1) }}",
    "percent format of bytes": "{{ ('%400000000d'.encode()) % 1 }}",
    "strftime_now": "{{ strftime_now('%1400d' * 200000) }}",
    "tojson with a long indent": "{{ range(2000)|list|tojson(indent='x'*200000)|length }}",
    "tojson with a wide indent": "{{ range(20000)|list|tojson(indent=20000)|length }}",
    "tojson with long separators": "{{ range(20000)|list|tojson(separators=('x'*20000,':'))|length }}",
    "urlize": "{{ ('http://a.co ' * 400)|urlize(target='x'*1000000)|length }}",
    "block set": (
        "{% set ns=namespace(s='x') %}{% for i in range(40) %}{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}"
    ),
    "dictionary keys hash": _TUPLES + "{{ {ns.a: 1}|length }}",
    "membership": _LISTS + "{{ ns.a is in [ns.b] }}",
    "round down": "{{ 1|round(20000000, 'floor') }}",
    "list methods of long lists": "{% set b=[1]*3000000 %}{% for i in range(60000) %}{% set x=b.copy() %}{% endfor %}",
    "slices": (
        "{% set ns=namespace(l=[]) %}{% set s='x'*20000000 %}"
        "{% for i in range(2000) %}{% set ns.l=[ns.l,s[1:]] %}{% endfor %}"
    ),
}
