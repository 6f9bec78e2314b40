"""The words of the made-up support tickets, as small grammars.

In a grammar `(a|b|c)` is a choice, which may nest and may be empty, and `{slot}` is filled in later: `{product}`, `{order}`, `{person}`
(who writes), `{bought}` (when it was bought), and slots that only look like answers: `{agent}`, `{other_date}`, `{invoice}`,
`{tracking}`, `{serial}`, `{price}`, `{city}`.

The networks read from left to right and must say of a word's first syllable whether a name or a product begins there, so something
before it has to tell.
"""

CATEGORIES = ("billing", "refund", "delivery", "defect", "account", "cancellation", "advice")
URGENCIES = ("low", "normal", "high")

BRANDS = (
    "Aurora", "Nimbus", "Brevo", "Zephyr", "Kestrel", "Ondine", "Calypso", "Fjord", "Mistral", "Solvei", "Tundra", "Vesper",
    "Orchid", "Lumen", "Pictor", "Quill", "Ravello", "Sable", "Tamarind", "Umbra", "Valdis", "Wren", "Yarrow", "Élan",
    "Möwe", "Ñandú", "Côté", "Bryza", "Halcyon", "Juniper",
)  # fmt: skip
ITEMS = (
    "kettle", "blender", "toaster", "headset", "keyboard", "monitor", "lamp", "backpack", "tent", "stroller", "vacuum", "fan",
    "heater", "router", "printer", "camera", "speaker", "scooter", "watch", "grill", "projector", "freezer", "drill", "mixer",
)  # fmt: skip
MODELS = ("", "", "", " Mini", " Pro", " Max", " {digit}", " X{digit}0", " {digit}00", " Pro {digit}", " Duo")

ORDER_SERIES = ("KX", "DB", "FR", "GT", "HV", "LM", "NP", "QS", "RW", "SZ", "TK", "VB", "WD", "XF", "ZG", "MH")

FIRST_NAMES = (
    "Maria", "José", "Zoë", "Łukasz", "Anna", "Peter", "Fatima", "Chidi", "Priya", "Søren", "Inès", "Björn", "Mehmet", "Olga",
    "Hiro", "Mei", "Carlos", "Ana", "Noah", "Emma", "Liam", "Sofia", "Ivan", "Nadia", "Yusuf", "Amara", "Kwame", "Leila", "Tom",
    "Greta", "Ruth", "Samuel", "Dina", "Oscar", "Paula", "Viktor", "Hélène", "Jürgen", "Agnès", "Tomás", "Siobhán", "Dário",
    "Renée", "Émile", "Ngozi", "Ayşe", "Jiří", "Małgorzata", "Thandiwe", "Rafael",
)  # fmt: skip
LAST_NAMES = (
    "Lopez", "García", "Müller", "Nowak", "Smith", "Okafor", "Sharma", "Jensen", "Dubois", "Lindström", "Yılmaz", "Petrova",
    "Tanaka", "Chen", "Silva", "Rossi", "Brown", "O'Neill", "Novák", "Haddad", "Mensah", "Karimi", "Weber", "Schröder", "Costa",
    "Ibrahim", "Fernández", "Kowalska", "Andersson", "Moreau", "Bianchi", "Dvořák", "Popescu", "Evans", "Murphy", "van Dijk",
    "Ødegård", "Çelik", "Nguyễn", "Adeyemi",
)  # fmt: skip
FULL_NAMES = ("山田 太郎", "李 小龍", "김 민수", "Мария Иванова", "Γιώργος Παππάς")
SYLLABLES = ("ba", "do", "ke", "li", "mo", "nu", "ra", "si", "ta", "ve", "zo", "lan", "mer", "dis", "kov", "ström", "ñez", "chi", "gra", "pel")  # fmt: skip

CITIES = (
    "Zürich", "Kraków", "São Paulo", "Leeds", "Porto", "Lyon", "Oslo", "Málaga", "Graz", "Izmir", "Kyoto", "Accra", "Quito",
    "Győr", "Reykjavík", "Bergen", "Naples", "Galway", "Łódź", "Nîmes",
)  # fmt: skip
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

GREETINGS = (
    "", "", "Hi,", "Hello,", "Hi there!", "Hello team,", "Dear support,", "Good (morning|afternoon|evening),", "Hey 👋",
    "Dear Sir or Madam,", "To whom it may concern,", "Bonjour,", "Hallo,", "¡Hola!", "Hi {agent},", "Dear {agent},",
)  # fmt: skip

INTRODUCTIONS = (
    "My name is {person}.",
    "I am {person} (from|in) {city}.",
    "This is {person}(| writing| again).",
    "It is {person} here.",
    "Name: {person}",
    "It's {person}, (a customer|a client) (for years|since last year).",
    "The account is (under the name of|registered to) {person}.",
)
SIGNATURES = (
    "(Best|Kind|Warm) regards,\n{person}",
    "Best,\n{person}",
    "Thanks,\n{person}",
    "(Many thanks|Thank you)!\n{person}",
    "Cheers, {person}",
    "— {person}",
    "Yours sincerely,\n{person}",
    "Merci d'avance,\n{person}",
    "Vielen Dank im Voraus!\n{person}",
    "Saludos,\n{person} 🙂",
)
UNSIGNED = ("", "", "Thanks!", "Thank you.", "Regards", "🙏", "Merci !", "Sent from my phone")

PRODUCT_LINES = (
    "It is about (my|the|our) {product}.",
    "(This|My message) concerns the {product}.",
    "Product: {product}",
    "I (have|own|bought) the {product}.",
    "We have (one|two|three) of the {product} at (home|work).",
    "The (item|article) is called {product}.",
    "The one in question is (my|our) {product}.",
)
ORDER_LINES = (
    "(My|The) order number is {order}.",
    "Order {order}.",
    "Order no. {order}",
    "Order: {order}",
    "(The reference of the order|The order confirmation says): {order}.",
    "You will find it (all |)under order {order}.",
    "It was part of order {order}.",
    "(I mean|See) order {order}, please.",
    "My order {order} (is in your system|was confirmed).",
)
BOUGHT_LINES = (
    "I bought it on {bought}.",
    "I (placed the order|ordered) on {bought}.",
    "(It was|They were) purchased on {bought}.",
    "Bought: {bought}",
    "The purchase was on {bought}.",
    "I got it from your (shop|site) on {bought}.",
    "Date of purchase: {bought}",
)

ISSUES = {
    "billing": (
        "(I was|We were|I have been) (charged|billed) (twice|two times|three times) for (it|one order|the same thing)",
        "(the amount on|the total of) (my|our) (bill|card statement) is (wrong|higher than agreed|{price} too high)",
        "(my|the) (discount code|voucher|coupon) was (ignored|not applied|rejected) (at checkout|and I paid full price)",
        "I need (a|the) (VAT invoice|receipt|corrected bill) for (my accountant|our books|tax reasons)",
        "(my card was declined|the payment failed) but {price} (left|was taken from) my account",
        "(there is a|I see a) (strange|second|unknown) (charge|debit) of {price} (from you|on my statement)",
        "the price (changed|went up) between the (basket|cart) and the (payment|bill)",
        "you (billed|charged) me in (dollars|the wrong currency)",
        "why (do I pay|am I paying) {price} when the site says {price}(?|)",
    ),
    "refund": (
        "I (sent|shipped|brought) it back (weeks ago|last month|in the box) and (my money has not come|still have no money back)",
        "I (want|would like|am asking for) (my money|the {price}) back",
        "(when|how soon) will I (get|see) my (refund|money back)(?|)",
        "(please|could you) (refund|reimburse) (me|us) (the full price|for this|{price})",
        "the (refund|reimbursement) (you promised|I was promised) (never came|is still missing|did not arrive on my card)",
        "only (half|part) of (my refund|the money) (was paid|came back)",
        "I returned it (unopened|unused) and (expect|wait for) the {price}",
        "you (received|have) my return, so where is the (money|refund)(?|)",
        "I (was given|got) store credit but I (want|asked for) (cash|the money) back",
    ),
    "delivery": (
        "(it|the parcel|my package) (has not arrived|never came|did not show up)(| yet)",
        "(the tracking|the tracking page) (has not moved|is stuck|shows nothing) (since|for) (days|a week|{other_date})",
        "the (courier|driver) left it (with a stranger|in the rain|at the wrong (house|address))",
        "(it|the parcel) was sent to (my old address|the wrong street|{city} instead of {city})",
        "(where is|what happened to) (my parcel|my package|the shipment)(?|)",
        "the (box|parcel) (is marked|was marked|says) delivered but (I have nothing|nobody got it)",
        "(only one of two boxes|half of the shipment|one part of the set) (came|arrived)",
        "(it has been|we have been waiting) (two weeks|ten days|a month) and (no parcel|nothing at the door)",
        "can (it|the parcel) be (shipped|sent|redirected) to {city}(| instead)(?|)",
    ),
    "defect": (
        "(it|the thing) (stopped working|died|broke) (after|within) (two days|a week|an hour)",
        "(it|the device) (does not|will not|won't) (turn on|switch on|start|charge)",
        "it (makes|is making) a (loud|strange|grinding|high) (noise|sound|whistle)",
        "the (lid|handle|button|screen|hinge|cable) is (cracked|broken|loose|bent)",
        "it (leaks|smokes|overheats|smells burnt) (when|whenever|each time) (I use it|it is on)",
        "(it|the screen) (flickers|goes black|freezes) (every few minutes|all the time|after a while)",
        "there is a (dent|scratch|crack|hole) in (it|the side|the front)",
        "the (battery|motor|light) (is dead|gives up|fails) (after minutes|again and again)",
        "(sparks|smoke) came out (of the back|of it) (yesterday|this morning)",
    ),
    "account": (
        "I (cannot|can't|am unable to) (log in|sign in|get into my account)",
        "the (password|login) (reset|recovery) (mail|link) (never comes|has expired|does not work)",
        "(my|our) account (is|was|has been) (locked|blocked|suspended)",
        "(please|could you) change (my|the) (email|phone number|user name) (in my profile|on the account)",
        "(I have|there are) two (accounts|profiles) and (want|need) them merged",
        "the (code|text message) for the two-step login (is not sent|does not arrive)",
        "someone (else|I don't know) (logged in to|has access to) my (account|profile)",
        "(please|I want you to) (delete|remove) my (account|profile|personal data)",
        "the site says my (user name|email) is (unknown|already taken)",
    ),
    "cancellation": (
        "(please|I want to|I would like to) cancel (it|my order|the order) before it ships",
        "(please|kindly) (stop|cancel|end) (my|our) (subscription|membership|monthly plan)",
        "I (changed my mind|no longer need it|found another one), so (please cancel|call it off)",
        "(how|where) (do I|can I) cancel (my order|the subscription|the plan)(?|)",
        "I ordered (the wrong one|by mistake|two instead of one), please cancel (one|it)",
        "we (wish|want) to (withdraw from|step back from) the (contract|purchase)",
        "do not (renew|extend) (my|our) (plan|contract|membership)",
        "I (pressed|clicked) cancel but the order is still (active|open|going ahead)",
        "(take|drop) (this|one) item (out of|from) my order, I (don't|do not) want it any more",
    ),
    "advice": (
        "(does|will) it (work|fit) with (my old one|the older version|a 110 volt socket)(?|)",
        "(how|is there a guide how) (do I|to) (set it up|install it|connect it to wifi)(?|)",
        "(which|what) (size|colour|version) (should I|would you) (take|recommend|choose)(?|)",
        "(can I|is it safe to) (wash it|use it outdoors|leave it on all night)(?|)",
        "what is the difference between (the two models|this one and the older one)(?|)",
        "(where|how) (do I find|can I download) the (manual|instructions|user guide)(?|)",
        "(is|will) the (green|white|blue) one (be in stock|available) (again|soon)(?|)",
        "how (often|long) should I (clean|charge|descale) it(?|)",
        "(do you|can you) (sell|offer) (spare parts|a longer warranty|extra filters) for it(?|)",
    ),
}
"""What is wrong, by category. Only these decide a ticket's category; `DISTRACTIONS` use the same words for something else."""

URGENCY_CUES = {
    "high": (
        "This is urgent!",
        "I need (an answer|this solved|help) (today|right now|within the hour|by tonight).",
        "Please (hurry|act at once|treat this as an emergency), (our shop is closed until then|people depend on it).",
        "(We|I) (leave|fly) tomorrow, so (it has to be today|there is no time).",
        "URGENT!!! 🚨",
        "(As soon as possible|ASAP) please, (the baby needs it|I am losing money every hour).",
        "It cannot wait (until tomorrow|another day|any longer).",
    ),
    "low": (
        "(There is no|No) (hurry|rush)(| at all).",
        "(Answer|Reply) whenever (you have time|it suits you).",
        "It is not urgent(| at all), (I am just curious|I can wait).",
        "(Take your time|Any time this month is fine).",
        "This can wait (until after the holidays|a few weeks|, really).",
        "I am in no hurry 🙂",
    ),
    "normal": ("", "", "", "(Please let me know|I look forward to your answer).", "What (should|can) I do(?| now?)", "Can you help(| me)?"),
}  # fmt: skip

DISTRACTIONS = (
    "(The delivery|The courier) (was quick|was on time), (thank you for that|no complaints there).",
    "The (last|previous) (bill|invoice) {invoice} was (fine|correct), by the way.",
    "I (don't|do not) (want|need) a refund(| for that), (just so you know|only your help).",
    "(Please don't cancel anything|I am not asking to cancel), I like (your shop|it otherwise).",
    "I can log in (fine|without trouble), so it is not that.",
    "Nothing is broken, (I checked|as far as I see).",
    "(The manual|Your user guide) is (very clear|well written).",
    "I (spoke with|talked to|asked) {agent} (last week|on {other_date}|twice).",
    "Your colleague {agent} (was very kind|promised to call back|could not help).",
    "The parcel had tracking number {tracking}.",
    "(The serial number is|On the back it says) {serial}.",
    "I paid {price} (by card|with PayPal|by bank transfer|in cash).",
    "(A friend|My neighbour) {agent} (recommended it|has the same one).",
    "My (phone|number) is +44 20 79{digit}6 0{digit}{digit}{digit}.",
    "I will be (away|abroad|on holiday) from {other_date}.",
    "(It was|This was) a birthday present for {other_date}.",
    "I live (in|near) {city}(|, on the third floor).",
    "(My ticket from|The chat of) {other_date} was never answered.",
    "I (love|really like) your (shop|products) 💚",
    "(It is raining here|The weather in {city} is awful) ☔",
    "The bill number is {invoice}.",
    "(My mother|My sister|A colleague) (uses it too|wanted one as well).",
)

RAMBLINGS = (
    "(Let me|I will) (explain|tell you) (everything|the whole story) from the (start|beginning).",
    "We (moved|came) to {city} (last spring|two years ago|when the children were small), and (since then|from that day) (a lot has changed|nothing has been simple).",
    "On {other_date} I (called|phoned) your (hotline|number) and (waited|was kept waiting) for (forty minutes|an hour|half the afternoon).",
    "(Then|Later|After that) {agent} (told me|said|wrote) that (somebody else|another team|the warehouse) (would look into it|was responsible|had to decide).",
    "I (wrote|sent) a (long|short|polite) (letter|mail|message) on {other_date}, (without any answer|and nobody replied|but it seems to be lost).",
    "> On {other_date}, {agent} wrote:\n> (Thank you for your message|We are sorry to hear that|Your request is being looked at).",
    "(My husband|My wife|My father|The neighbour) (laughed|shook his head|shrugged) and (made tea|went out into the garden|said nothing) 😅.",
    "(Meanwhile|In the meantime) (the cat|the dog|our youngest) (slept on the sofa|chased the postman|ate the cardboard), (as always|as you can imagine).",
    "(I am not a technical person|I know little about machines), but (I read everything twice|I can follow instructions).",
    "The (weather|traffic|news) (was|had been) (dreadful|wonderful|strange) (all week|that day|for days), (not that it matters|which did not help).",
    "LOG {digit}{digit}:{digit}{digit}:{digit}{digit} device={serial} status=0x{digit}{digit}{digit} retries={digit}",
    "(Our|My) (street|building|village) has (forty|seven|about a hundred) (houses|families|steps), and (everybody knows everybody|the lift is old).",
    "At (school|work|the office) (people|they) (asked|wondered) (about it|how it went) (every single day|more than once).",
    "(I kept|We kept) the (box|papers|wrapping) in the (cellar|garage|attic), (next to|under|behind) the (bicycles|old chairs|Christmas tree) 🎄.",
    "(To be fair|Honestly|In the end), (your shop|the team) has (always been good|helped me before|a good name) (in {city}|among my friends|).",
    "(Anyway|Well|So), (here we are|that is the background|enough of that) …",
    "This message (and any attachment|) is (confidential|meant for the reader alone); (please do not forward it|if it reached you by mistake, delete it).",
)  # fmt: skip
"""What makes a long ticket long. None of it says what the ticket is about or how urgent it is."""
