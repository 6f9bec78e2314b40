"""Chat templates that cost without end what little they look like: each got past a budget of steps once.

All grow linearly with a number that stands in them, or twofold a level, so they can be made as large as one likes. A template stands
alone: it needs neither messages nor variables.
"""

from collections.abc import Mapping


def _shared(levels: int, start: str, join: str) -> str:
    """Builds `ns.a` and `ns.b`, equal and of `levels` levels, each of which holds the one below it twice."""
    step = f"{{% set ns.a={join.format('ns.a')} %}}{{% set ns.b={join.format('ns.b')} %}}"
    return f"{{% set ns=namespace(a={start},b={start}) %}}{{% for i in range({levels}) %}}{step}{{% endfor %}}"


_LISTS = _shared(30, "[1]", "[{0},{0}]")
_TUPLES = _shared(30, "(1,)", "({0},{0})")
_MAPPINGS = _shared(22, "{'x': 1}", "{{'k': {0}, 'l': {0}}}")

TEMPLATE_BOMBS: Mapping[str, str] = {
    # Tests that compare
    "is eq": f"{_LISTS}{{{{ ns.a is eq ns.b }}}}",
    "is in": f"{_LISTS}{{{{ ns.a is in [ns.b] }}}}",
    "is lt": f"{_LISTS}{{{{ ns.a is lt ns.b }}}}",
    # Subscripts that hash
    "subscript": f"{_TUPLES}{{{{ {{}}[ns.a] is defined }}}}",
    # Numbers
    "round": "{% set n=1 %}{{ n|round(20000000, 'ceil') }}",
    "large division": "{{ (('f'*1200000)|int(0,16) // ('f'*600000)|int(0,16)) is odd }}",
    "large remainder": "{{ (('f'*1200000)|int(0,16) % ('f'*600000)|int(0,16)) is odd }}",
    # Quadratic filters
    "sum of lists": "{{ ([[1]]*80000)|sum(start=[])|length }}",
    "wordwrap": "{{ ('x'*800000)|wordwrap(1)|length }}",
    # Methods of lists
    "list count": "{% set b=[1]*3000000 %}{% for i in range(300) %}{% set x=b.count(2) %}{% endfor %}",
    # Printing
    "print list": "{{ ['x'*1000000] * 2000 }}",
    "print shared lists": f"{_LISTS}{{{{ ns.a }}}}",
    "print shared mappings": f"{_MAPPINGS}{{{{ ns.a }}}}",
    # Formats
    "percent format": "{{ ('%9999d' * 200000) % ((1,)*200000) }}",
    "brace format": "{{ ('{0:9999}' * 200000).format(1) }}",
    "bytes format": "{{ ('%2000000000d'.encode()) % 1 }}",
    "strftime_now": "{{ strftime_now('%1400d' * 1000000)|length }}",
    # JSON
    "tojson indent text": "{{ ([1]*10000)|tojson(indent='x'*200000)|length }}",
    "tojson indent number": "{{ ([1]*100000)|tojson(indent=20000)|length }}",
    "tojson separators": "{{ ([1]*100000)|tojson(separators=('x'*20000,':'))|length }}",
    # Text
    "urlize": "{{ ('http://a.co ' * 2000)|urlize(target='x'*1000000)|length }}",
    "block set": "{% set ns=namespace(s='xxxxxxxxxxxx') %}{% for i in range(28) %}"
    "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}{% endfor %}",
    "slices": "{% set ns=namespace(l=[]) %}{% set s='x'*20000000 %}{% for i in range(120) %}{% set ns.l=[ns.l,s[1:]] %}{% endfor %}",
}
"""What each of them does, and the template."""
