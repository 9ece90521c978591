"""Words of the German-English grammar: data only, written for this project (see ``_german``).

Rows are separated by line ends, fields by ``|``. Irregular forms stand in the rows, regular ones are derived.
"""

# German | article | German plural | English | class | flags. English plurals that "s" does not make follow after a slash.
# Flags: "w" weak noun ("den Jungen": outside the nominative it looks like its plural), "-" not with "mein" or "unser", "1" only
# in the singular.
NOUNS = """
Mann | der | Männer | man/men | person | -
Frau | die | Frauen | woman/women | person | -
Kind | das | Kinder | child/children | person |
Junge | der | Jungen | boy | person | w-
Mädchen | das | Mädchen | girl | person | -
Lehrer | der | Lehrer | teacher | person |
Ärztin | die | Ärztinnen | doctor | person |
Freund | der | Freunde | friend | person |
Nachbar | der | Nachbarn | neighbor | person | w
Mutter | die | Mütter | mother | person | 1
Vater | der | Väter | father | person | 1
Bruder | der | Brüder | brother | person |
Schwester | die | Schwestern | sister | person |
Tante | die | Tanten | aunt | person |
König | der | Könige | king | person | -
Köchin | die | Köchinnen | cook | person |
Bauer | der | Bauern | farmer | person | w-
Student | der | Studenten | student | person | w-
Sängerin | die | Sängerinnen | singer | person | -
Bäcker | der | Bäcker | baker | person |
Hund | der | Hunde | dog | animal |
Katze | die | Katzen | cat | animal |
Pferd | das | Pferde | horse | animal |
Vogel | der | Vögel | bird | animal |
Kuh | die | Kühe | cow | animal |
Maus | die | Mäuse | mouse/mice | animal |
Hase | der | Hasen | rabbit | animal | w
Ente | die | Enten | duck | animal |
Apfel | der | Äpfel | apple | food |
Kuchen | der | Kuchen | cake | food |
Ei | das | Eier | egg | food |
Birne | die | Birnen | pear | food |
Kartoffel | die | Kartoffeln | potato/potatoes | food |
Tomate | die | Tomaten | tomato/tomatoes | food |
Fisch | der | Fische | fish/fish | food |
Buch | das | Bücher | book | text |
Brief | der | Briefe | letter | text |
Zeitung | die | Zeitungen | newspaper | paper |
Geschichte | die | Geschichten | story/stories | text |
Gedicht | das | Gedichte | poem | text |
Ball | der | Bälle | ball | thing |
Tasche | die | Taschen | bag | load |
Koffer | der | Koffer | suitcase | load |
Kiste | die | Kisten | box/boxes | load |
Stuhl | der | Stühle | chair | thing |
Schlüssel | der | Schlüssel | key | thing |
Blume | die | Blumen | flower | thing |
Bild | das | Bilder | picture | thing |
Geschenk | das | Geschenke | present | thing |
Messer | das | Messer | knife/knives | thing |
Lampe | die | Lampen | lamp | machine |
Uhr | die | Uhren | clock | machine |
Fahrrad | das | Fahrräder | bike | machine |
Auto | das | Autos | car | machine |
Hut | der | Hüte | hat | clothes |
Mantel | der | Mäntel | coat | clothes |
Kleid | das | Kleider | dress/dresses | clothes |
Tür | die | Türen | door | opening |
Fenster | das | Fenster | window | opening |
Garten | der | Gärten | garden | room |
Küche | die | Küchen | kitchen | room |
Zimmer | das | Zimmer | room | room |
Haus | das | Häuser | house | house |
Park | der | Parks | park | place | -
Wald | der | Wälder | forest | place | -
Dorf | das | Dörfer | village | place |
Stadt | die | Städte | city/cities | place |
Kirche | die | Kirchen | church/churches | building | -
Schule | die | Schulen | school | building |
Bahnhof | der | Bahnhöfe | station | stop | -
Baum | der | Bäume | tree | tree |
Brücke | die | Brücken | bridge | bridge | -
Fluss | der | Flüsse | river | water | -
See | der | Seen | lake | water | -
Markt | der | Märkte | market | market | -
"""

# Where something happens: class | preposition (with the dative) | English; "water:in" is for swimmers alone.
PLACES = """
room | in | in
house | in | in
place | in | in
house | hinter | behind
house | neben | next to
building | vor | in front of
building | hinter | behind
stop | an | at
tree | unter | under
tree | hinter | behind
bridge | auf | on
water | an | by
water:in | in | in
market | auf | at
"""

# German | English | classes of the nouns that it goes with; "-" in front: not predicative ("Das Auto ist rot" is).
ADJECTIVES = """
alt | old | person animal text load machine clothes opening room house place building bridge tree
jung | young | person animal
neu | new | thing load machine clothes opening room house building bridge
klein | small | animal food thing load machine clothes opening room house place building stop tree market
groß | big | animal food thing load machine clothes opening room house place building stop tree market
schön | beautiful | text thing clothes room house place building bridge water
freundlich | friendly | person
glücklich | happy | person
traurig | sad | person text
müde | tired | person animal
hungrig | hungry | person animal
krank | sick | person animal
reich | rich | person
arm | poor | person
klug | clever | person animal
stark | strong | person animal
schwarz | black | animal clothes load
weiß | white | animal clothes thing
rot | red | clothes machine load thing
blau | blue | clothes machine load
grün | green | clothes machine load opening
teuer | expensive | machine clothes thing
billig | cheap | food machine clothes load
frisch | fresh | food
schwer | heavy | load
lang | long | text paper bridge
kurz | short | text
"""

# Infinitive, a dot behind a separable prefix | third person | participle | h(aben) or s(ein) | English: base, past, participle
# | subjects | object: case, or preposition + case > English preposition, then classes. "!" behind the English: no progressive.
# A word behind the past after a "_" stays as it is: "pick_up".
VERBS = """
schlafen | schläft | geschlafen | h | sleep slept slept | person animal |
lachen | lacht | gelacht | h | laugh | person |
tanzen | tanzt | getanzt | h | dance | person |
singen | singt | gesungen | h | sing sang sung | person |
arbeiten | arbeitet | gearbeitet | h | work | person |
schwimmen | schwimmt | geschwommen | s | swim swam swum | person animal |
weinen | weint | geweint | h | cry | person |
kochen | kocht | gekocht | h | cook | person |
spielen | spielt | gespielt | h | play | person animal |
warten | wartet | gewartet | h | wait | person animal |
essen | isst | gegessen | h | eat ate eaten | person | acc food
fressen | frisst | gefressen | h | eat ate eaten | animal | acc food
lesen | liest | gelesen | h | read read read | person | acc text paper
schreiben | schreibt | geschrieben | h | write wrote written | person | acc text
kaufen | kauft | gekauft | h | buy bought bought | person | acc food text thing machine clothes load
verkaufen | verkauft | verkauft | h | sell sold sold | person | acc food thing machine clothes animal
sehen | sieht | gesehen | h | see saw seen! | person animal | acc person animal
suchen | sucht | gesucht | h | look_for | person animal | acc person animal thing load
finden | findet | gefunden | h | find found found! | person | acc thing load animal
öffnen | öffnet | geöffnet | h | open | person | acc opening load
schließen | schließt | geschlossen | h | close | person | acc opening
waschen | wäscht | gewaschen | h | wash | person | acc animal clothes
lieben | liebt | geliebt | h | love! | person | acc person animal
kennen | kennt | gekannt | h | know knew known! | person | acc person
brauchen | braucht | gebraucht | h | need! | person | acc thing load machine clothes
tragen | trägt | getragen | h | carry | person | acc load thing
besuchen | besucht | besucht | h | visit | person | acc person
reparieren | repariert | repariert | h | repair | person | acc machine opening
jagen | jagt | gejagt | h | chase | animal | acc animal
warten | wartet | gewartet | h | wait | person | auf+acc>for person
spielen | spielt | gespielt | h | play | person | mit+dat>with animal
tanzen | tanzt | getanzt | h | dance | person | mit+dat>with person
sprechen | spricht | gesprochen | h | talk | person | mit+dat>to person
lachen | lacht | gelacht | h | laugh | person | über+acc>at text
auf.stehen | steht | aufgestanden | s | get_up got got | person |
auf.wachen | wacht | aufgewacht | s | wake_up woke woken | person animal |
ein.schlafen | schläft | eingeschlafen | s | fall_asleep fell fallen | person animal |
an.kommen | kommt | angekommen | s | arrive | person |
fern.sehen | sieht | ferngesehen | h | watch_TV | person |
ab.holen | holt | abgeholt | h | pick_up | person | acc person load
an.rufen | ruft | angerufen | h | call | person | acc person
an.ziehen | zieht | angezogen | h | put_on put put | person | acc clothes
zu.machen | macht | zugemacht | h | close | person | acc opening load
helfen | hilft | geholfen | h | help | person | dat person animal
danken | dankt | gedankt | h | thank | person | dat person
folgen | folgt | gefolgt | s | follow | person animal | dat person animal
geben | gibt | gegeben | h | give gave given | person | to food thing load text
zeigen | zeigt | gezeigt | h | show showed shown | person | to thing machine clothes animal
bringen | bringt | gebracht | h | bring brought brought | person | to food load paper
schicken | schickt | geschickt | h | send sent sent | person | to text
"""

# German | English | kind: "any" time, "habit" (no progressive), "now" (rather the progressive), "past", "future"
TIMES = """
heute | today | any
am Montag | on Monday | any
am Freitag | on Friday | any
am Abend | in the evening | any
jetzt | now | now
jeden Tag | every day | habit
jeden Morgen | every morning | habit
gestern | yesterday | past
letzte Woche | last week | past
morgen | tomorrow | future
"""

# German | English, which stands before the verb
FREQUENCIES = """
oft | often
immer | always
nie | never
"""

# German | English, of how an intransitive verb is done
MANNERS = {"singen": ("laut", "loudly"), "lachen": ("laut", "loudly"), "weinen": ("leise", "quietly"),
           "arbeiten": ("langsam", "slowly"), "schwimmen": ("schnell", "quickly"), "warten": ("still", "quietly")}  # fmt: skip

MODALS = {"können": ("kann", "can"), "müssen": ("muss", "must"), "wollen": ("will", "want to")}
CONJUNCTIONS = {"weil": "because", "obwohl": "although", "wenn": "when"}
SAYINGS = {"sagt": "says", "glaubt": "thinks", "weiß": "knows"}
NUMBERS = {"zwei": "two", "drei": "three", "vier": "four", "fünf": "five"}

DOUBLED = {"swim", "get", "put"}  # "swimming"

NOT_OLD = {"Kind", "Junge", "Mädchen"}
COLOURS = {"schwarz", "weiß", "rot", "blau", "grün"}
OPPOSITES = ({"alt", "jung", "neu"}, {"groß", "klein"}, {"glücklich", "traurig"}, {"reich", "arm"}, {"teuer", "billig"},
             {"lang", "kurz"}, COLOURS)  # fmt: skip
FEELINGS = {"person": (("glücklich", "happy"), ("traurig", "sad"), ("müde", "tired"), ("hungrig", "hungry"), ("krank", "sick")),
            "animal": (("müde", "tired"), ("hungrig", "hungry"))}  # fmt: skip

LASTING = {"lieben", "kennen", "brauchen"}  # at no time and place, neither wanted nor over
WHERE = {"schwimmen": "water:in", "kochen": "room house", "fernsehen": "room house"}  # the only places of these verbs
