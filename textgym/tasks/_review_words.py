"""Words and short phrases of the film reviews: data only, written for this project.

A table maps the name of a slot to its fillers, separated by ``;``. Fillers may hold slots (``{adj}``) and marks
themselves; the notation is explained in ``_review_grammar``. Names that end in ``+`` or ``-`` are the two opinions of
one slot.
"""

WORDS: dict[str, str] = {
    # ---- what reviewers talk about ------------------------------------------------------------------------------
    "film": "film; movie; picture; film; movie",
    "genre": (
        "thriller; comedy; drama; western; romance; mystery; musical; heist film; ghost story; road movie; family"
        " film; courtroom drama; costume drama; adventure; spy film; detective story; fairy tale; satire; monster"
        " movie; coming-of-age story; sports drama; disaster film; puppet film; science fiction film; biography;"
        " farce"
    ),
    "genres": (
        "thrillers; comedies; dramas; westerns; romances; mysteries; musicals; heist films; ghost stories; road"
        " movies; spy films; fairy tales; satires; monster movies; costume dramas; detective stories; silent films;"
        " cartoons"
    ),
    "part": (
        "script; plot; story; dialogue; screenplay; score; soundtrack; music; camera work; photography; lighting;"
        " editing; pacing; direction; acting; ending; opening; final act; middle section; first half; second half;"
        " finale; climax; title song; romance; production design; narration; prologue; epilogue; twist; last scene;"
        " premise; subplot; tone; atmosphere; opening scene; animation; voice work; choreography; structure; chase;"
        " dinner scene; love story; theme song; final scene; scenery; sound design; concept; storytelling; central"
        " idea; wedding scene"
    ),
    "parts": (
        "performances; costumes; special effects; sets; songs; jokes; action scenes; characters; supporting roles;"
        " flashbacks; subplots; visuals; dance numbers; sound effects; locations; crowd scenes; stunts; musical"
        " numbers; conversations; monologues; chase scenes; landscapes; dream sequences; minor characters;"
        " one-liners; lyrics; group scenes; quiet moments; night scenes; creatures; opening credits; puns; duets;"
        " family scenes; speeches"
    ),
    "stuff": (  # nouns that need no article
        "music; photography; dialogue; acting; scenery; direction; editing; writing; costumes; songs; performances;"
        " jokes; visuals; sets; camera work; animation; characters; dance numbers; storytelling; lighting; ideas;"
        " landscapes; sound design; slapstick; banter; special effects; choreography"
    ),
    "moment": "joke; scene; song; gesture; camera angle; line; detail; moment; image; chase; glance; shot; pause",
    "person": (
        "lead actor; leading lady; child actor; young star; villain; narrator; hero; heroine; supporting cast;"
        " sidekick; older sister; younger brother; detective; newcomer; understudy; whole cast; stepfather;"
        " grandmother; comedian"
    ),
    "maker": "director; screenwriter; composer; editor; cinematographer; choreographer; producer; writer",
    "relative": (
        "wife; husband; brother; sister; mother; father; neighbor; roommate; daughter; son; cousin; aunt; uncle;"
        " nephew; boss; dentist; classmate; grandson; teacher; landlord; colleague"
    ),
    # ---- names, places, numbers ---------------------------------------------------------------------------------
    "first": (
        "Anna; Boris; Clara; Dario; Edith; Felix; Greta; Hugo; Irene; Jonas; Karin; Lewis; Marta; Nadia; Oscar;"
        " Paula; Quentin; Rosa; Simon; Tilda; Ulric; Vera; Walter; Yara; Zeno; Omar; Leila; Kofi; Mei; Priya;"
        " Tomas; Ingrid"
    ),
    "last": (
        "Abendroth; Bellweather; Carrow; Dunmore; Eckhart; Farrowby; Gillam; Hartwell; Ivers; Jessop; Kestrel;"
        " Lindqvist; Marchetti; Norling; Okoro; Pemberly; Quill; Rosales; Sandoval; Tamura; Underhill; Varga;"
        " Westlake; Yardley; Zeller; Brackett; Castellan; Delacroix; Holloway; Mbeki; Novak; Petrova"
    ),
    "name": "{first} {last}",
    "actor": "{first} {last}",
    "director": "{first} {last}",
    "title": (
        "The {title_adj} {title_noun}; {title_noun} at Midnight; One {title_noun} for {first}; {first} and the"
        " {title_noun}"
    ),
    "title_adj": (
        "Silver; Last; Quiet; Crooked; Seventh; Paper; Winter; Hollow; Distant; Scarlet; Borrowed; Wandering; Blue"
    ),
    "title_noun": (
        "Harbor; Lantern; Garden; Clock; River; Piano; Tower; Bridge; Letter; Mirror; Orchard; Ferry; Suitcase; Map"
    ),
    "place": (
        "Lisbon; Naples; Glasgow; Prague; Montreal; Oslo; Chicago; Nairobi; Kyoto; Lima; Dublin; Vienna; Cairo;"
        " Boston; Helsinki; Havana; Mumbai; Texas; Iceland; Portugal; New Zealand; northern Italy; rural France;"
        " Seoul; Alaska"
    ),
    "spot": (
        "a fishing village; a small mountain town; an old hotel; a lighthouse; a boarding school; a newspaper"
        " office; a circus; a theater; a bakery; an airport; a desert camp; a suburb; a museum; a submarine; a"
        " hospital; a vineyard; a library; an abandoned factory; a nightclub; a monastery"
    ),
    "year": (
        "1934; 1951; 1958; 1962; 1967; 1971; 1974; 1979; 1983; 1987; 1990; 1994; 1998; 2003; 2008; 2011; 2016; 2021"
    ),
    "small": "two; three; four; five; six; seven; eight; nine; ten; twelve",
    "runtime": (
        "two hours; ninety minutes; nearly three hours; just over two hours; about 80 minutes; 95 minutes; 104"
        " minutes; 112 minutes; 127 minutes; barely an hour; two and a half hours; an hour and a half; almost four"
        " hours"
    ),
    "when": (
        "last night; last Friday; on a rainy Sunday; on Tuesday; over the weekend; in the summer; last month; in"
        " January; on New Year's Eve; yesterday; this morning; after work; before dinner; in 2019; during the"
        " holidays; in late spring; one evening in October"
    ),
    "where": (
        "at the cinema; on television; on a plane; at a film club; in an empty theater; at an outdoor screening; on"
        " my laptop; at home; at a festival in {place}; in a packed theater; in the back row; on an old videotape;"
        " at the university; in a hotel room; at the local library; at a drive-in theater"
    ),
    "score+": (
        "8 out of 10; nine out of ten; 9 out of 10; four stars; 4 out of 5; five stars out of five; a solid eight"
    ),
    "score-": "2 out of 10; three out of ten; 3 out of 10; one star; 1 out of 5; two stars out of five; a two at most",
    "score0": "5 out of 10; six out of ten; 6 out of 10; three stars; 3 out of 5; a five; two and a half stars",
    # ---- plots --------------------------------------------------------------------------------------------------
    "hero": (
        "baker; widow; clockmaker; schoolteacher; retired sailor; young lawyer; violinist; taxi driver; nurse;"
        " farmer; journalist; magician; painter; postman; gardener; waitress; boxer; chess player; mechanic;"
        " librarian; pilot; photographer; professor; tailor; translator; butcher; carpenter; fisherman; piano"
        " tuner; astronaut; plumber"
    ),
    "plot": (
        "*inherit an old piano; *find a box of letters; *move to {place}; *travel to {place} by train; *open a shop"
        " in {spot}; *meet a stranger in {spot}; *search for a missing painting; *return home after {small} years;"
        " *take a job in {spot}; *raise {small} children alone; *buy a boat; *write a book about {place}; *cross"
        " the country on foot; *follow a mysterious map; *look after a stray dog; *wake up in {spot}; *enter a"
        " cooking contest; *lose a suitcase full of money; *fall for a {hero}; *pretend to be a {hero}; *learn to"
        " dance; *hide in {spot}; *repair an old airplane; *swap places with a {hero}; *spend a winter in {spot};"
        " *quarrel with a {hero}"
    ),
    "role": (
        "{hero}; {hero}; mayor; landlady; older brother; grandfather; station master; neighbor; rival; police"
        " inspector; queen; shy clerk; ambassador; coach; ship's captain; night porter; gambler;"
        " duchess; innkeeper"
    ),
    # ---- adjectives ---------------------------------------------------------------------------------------------
    "adj+": (
        "wonderful; brilliant; delightful; beautiful; excellent; charming; superb; lovely; terrific; fantastic;"
        " magnificent; marvelous; gorgeous; impressive; outstanding; remarkable; clever; elegant; witty;"
        " thoughtful; inspired; stunning; breathtaking; enjoyable; entertaining; engaging; exciting; fascinating;"
        " satisfying; rewarding; imaginative; original; creative; convincing; effective; powerful; touching;"
        " heartwarming; graceful; splendid; glorious; thrilling; pleasant; agreeable; amusing; funny; hilarious;"
        " lively; playful; intelligent; sophisticated; vibrant; sparkling; warm; gentle; sincere; honest;"
        " energetic; flawless; perfect; great; good; fine; nice; strong; solid; interesting; lovable; joyful;"
        " exhilarating; innovative; tender; sweet; bold; smart; cheerful; admirable; appealing; fresh; dazzling;"
        " ambitious; confident; comforting; inspiring; natural; inviting; adorable; fun; pleasing; cool; memorable;"
        " gripping; poignant; seamless; crisp; deft; luminous; mesmerizing; absorbing; taut; subtle; nuanced;"
        " evocative; riveting; understated; compelling; exquisite; unforgettable; spellbinding; first-rate; well"
        " judged; inventive; moving; rich; lyrical; precise; polished; irresistible; daring; sublime;"
        " top-notch; refined"
    ),
    "adj-": (
        "awful; disgusting; horrid; vile; excruciating; insulting; infuriating; shameful; rotten; hideous; brutal;"
        " hateful; maddening; heartless; agonizing; punishing; pretentious; woeful; bitter; dishonest;"
        " unacceptable; unworthy; horrifying; ruinous; hurtful; torturous; vicious; cynical; abusive; wretched;"
        " damaging; dead; repulsive; sickening; horrific; tragic; failed; terrible; horrible; dreadful; dull;"
        " boring; tedious; lame; weak; poor; bad; lazy; stupid; ridiculous; pathetic; miserable; disappointing;"
        " annoying; irritating; dismal; lousy; pointless; messy; confusing; clumsy; mediocre; forced; awkward;"
        " silly; ugly; dreary; lifeless; painful; frustrating; tiresome; unpleasant; embarrassing; appalling;"
        " atrocious; insipid; hopeless; useless; worthless; mindless; meaningless; joyless; disgraceful; ludicrous;"
        " idiotic; exhausting; repetitive; pitiful; disjointed; unconvincing; inept; offensive; depressing;"
        " distracting; unbearable; flawed; empty; crude; gloomy; cruel; nasty; obnoxious; inferior; strange;"
        " disastrous; horrendous; grim; tense; unimpressive; uninvolving; passionless; problematic; uncomfortable;"
        " regrettable; ineffectual; moronic; feeble; sloppy; disturbing; abysmal; humorless; unfocused; jarring;"
        " vapid; flat; wooden; overlong; formulaic; derivative; bland; muddled; stale; uneven; sluggish; leaden;"
        " hollow; heavy-handed; threadbare; amateurish; incoherent; botched; soulless; plodding; overblown;"
        " tacky; contrived; shapeless; predictable; cheap; shallow; undercooked; corny; syrupy; cluttered; garbled;"
        " monotonous; charmless"
    ),
    "adj0": (
        "slow; long; short; quiet; modest; old-fashioned; low-budget; foreign; independent; loud; colorful; simple;"
        " brief; restrained; ordinary; conventional; familiar; unusual; talkative; minimal; traditional; busy;"
        " theatrical; serious"
    ),
    "degree": "really; quite; simply; so; thoroughly; rather; just; at times; genuinely; surprisingly",
    "qual": "{adj}; {adj}; {adj}; {adj}; {degree} {adj}; {adj} and {adj}",
    "people_adj+": (
        "superb; brilliant; charming; wonderful; funny; convincing; magnetic; likable; talented; excellent;"
        " delightful; warm; outstanding; fearless; terrific; lovable; adorable; graceful; hilarious; sincere;"
        " marvelous; great; believable; relaxed; radiant; energetic; perfectly cast; witty; generous; confident; at"
        " ease; quietly heroic"
    ),
    "people_adj-": (
        "wooden; awful; dull; annoying; terrible; miscast; unconvincing; stiff; irritating; bad; lifeless;"
        " dreadful; bored; hopeless; weak; embarrassing; awkward; obnoxious; smug; unpleasant; pathetic; tired;"
        " lost; lazy; horrible; nervous; out of place; painfully shy; uncomfortable; insufferable; arrogant; clumsy"
    ),
    # ---- adverb and participle ----------------------------------------------------------------------------------
    "how+": (
        "beautifully; brilliantly; cleverly; wonderfully; elegantly; superbly; skillfully; lovingly; perfectly;"
        " gracefully; thoughtfully; magnificently; confidently; neatly; gorgeously; carefully; crisply;"
        " imaginatively; patiently"
    ),
    "how-": (
        "badly; poorly; clumsily; horribly; terribly; lazily; awkwardly; dreadfully; painfully; miserably; hastily;"
        " crudely; carelessly; pathetically; stupidly; sloppily; cheaply; hopelessly; atrociously"
    ),
    "done": "shot; acted; written; edited; staged; paced; filmed; directed; scored; designed; told; constructed; lit",
    "adverb+": (
        "Happily; Luckily; Thankfully; To my delight; Best of all; Fortunately; To my surprise; As promised;"
        " Against all odds; Remarkably; Even better; Better still"
    ),
    "adverb-": (
        "Sadly; Unfortunately; Regrettably; To my dismay; Worst of all; To my regret; Alas; As I feared;"
        " Annoyingly; Worse still; To be blunt; Inexplicably"
    ),
    # ---- verb phrases; * marks the verb to conjugate, ^ is "its" or "their" ----------------------------------------
    "vp+": (
        "*work beautifully; *win me over; *hold my attention; *lift every scene; *deserve an award; *impress me"
        " deeply; *surprise me again and again; *delight me; *carry the whole {film}; *add warmth and wit; *linger"
        " in the memory; *ring true; never *put a foot wrong; *pay off handsomely; *keep me guessing; *bring a"
        " smile to my face; *give the {film} real charm; *fit perfectly; *be a pleasure from start to finish; *be a"
        " joy; *be a triumph; *draw me in at once; *make me laugh out loud; *glow with energy; *have style and"
        " confidence; *feel fresh and {adj}; *reward a second viewing; *exceed my hopes; *build to a {adj} payoff;"
        " *find the right balance; *cast a spell; *succeed on ^ own terms; *be full of life; *show true talent; *be"
        " well worth the ticket; *charm everyone around me; *improve with every minute; *earn ^ applause; *strike a"
        " perfect note; *breathe new life into the {genre}; *move me to tears of joy"
    ),
    "vp-": (
        "*drag; *fall flat; *bore me; *annoy me; *ruin the mood; *go nowhere; *make no sense; *let everyone down;"
        " *wear me out; *spoil the {film}; *fail badly; *fail miserably; *grate on my nerves; *collapse halfway"
        " through; *insult the audience; *be a mess; *be a waste of time; *be a disappointment; *be a disaster;"
        " *kill the tension; *feel fake and {adj}; *irritate me from start to finish; *be pure torture; *be an ugly"
        " failure; *make me angry; *be a terrible mess; *be an awful bore; *wreck the mood; *hurt the {film} badly;"
        " *be a crime against the book; *lack any spark; *run out of ideas; *put me to sleep; *miss the point;"
        " *sink the whole {film}; *confuse everyone; *feel as long as a school day; *destroy the tension; *be full"
        " of holes; *be hard to sit through; *suffer from {adj} {stuff}; *disappoint me; *be horribly out of place;"
        " *leave me cold; *test my patience; *stumble badly; *weaken the {film}; *be an embarrassment; *give me a"
        " headache; *drown in cliches; *be painful to watch"
    ),
    "vp0": (
        "*stay in the background; *change halfway through; *remind me of {title}; *borrow from older {genres};"
        " *take a while to settle; *follow the usual pattern; *be much like the one in {title}; *come straight from"
        " the novel; *be typical of the period; *be neither here nor there; *be about what I expected; *owe a lot"
        " to the {genres} of the past; *be kept simple"
    ),
    "film_vp+": (
        "{vp}; *tell a {adj} story; *celebrate friendship; *sparkle from beginning to end; *touch the heart; *be a"
        " {adj} surprise; *stay with you for days; *offer {adj} {stuff} and {adj} {stuff}; *be a small miracle;"
        " *fly by"
    ),
    "film_vp-": (
        "{vp}; *waste a good idea; *have no heart; *be an insult to the book; *be a {adj} bore; *cheat the viewer;"
        " *lose ^ way; *offer {adj} {stuff} and {adj} {stuff}; *be a chore; *crawl; *abandon ^ own rules"
    ),
    "actor_vp+": (
        "*shine; *give a {people_adj} performance; *steal every scene; *bring warmth and humor; *be {people_adj};"
        " *be a revelation; *make every line count; *win our sympathy; *hold the {film} together; *do {adj} work;"
        " *have great charm; *light up the screen; *be {people_adj} and {people_adj}; *be a delight"
    ),
    "actor_vp-": (
        "*mumble every line; *look lost; *overact; *sleepwalk through the {film}; *seem bored; *be {people_adj};"
        " *give a {people_adj} performance; *shout far too much; *be badly miscast; *be {people_adj} and"
        " {people_adj}; *have no charm; *ruin every scene; *do {adj} work; *struggle with the accent; *be wasted;"
        " *fail miserably; *be a terrible choice; *annoy everyone; *be awful"
    ),
    "liked+": (
        "loved; enjoyed; adored; admired; liked; appreciated; cherished; praised; was impressed by; was charmed by"
    ),
    "liked-": (
        "hated; disliked; loathed; despised; regretted; resented; was annoyed by; was let down by; dreaded; cursed"
    ),
    "i_did+": (
        "{liked} it; laughed out loud; left with a smile; was hooked within minutes; {liked} every minute; was"
        " happily surprised; could not look away; would gladly watch it again; wanted to applaud; {liked} the"
        " {part}; felt lucky to be there; cheered at the end; was moved; bought the soundtrack the same day;"
        " recommend it warmly; hope for a sequel; {liked} the {adj} {part}; forgot the time; went back the next"
        " day; grinned all the way home; was in awe of the {part}"
    ),
    "i_did-": (
        "{liked} it; nearly walked out; kept checking my watch; lost interest; struggled to stay awake; {liked}"
        " every minute; felt cheated; was bored; wanted my money back; {liked} the {part}; gave up after an hour;"
        " left angry; fell asleep; groaned at the end; was disappointed; {liked} the {adj} {part}; cannot recommend"
        " it; felt sorry for the cast; yawned all evening; suffered badly; felt sick and tired; was angry and"
        " bored; was badly disappointed; hated the awful {part}; never cared; was glad when it ended; was sick of"
        " the {part}; could not wait for the credits"
    ),
    "i_did0": (
        "had never heard of it; sat near the exit; had read the novel first; watched it with my {relative}; went in"
        " without expectations; took a few notes; knew only the poster; had a free ticket; read the subtitles;"
        " talked about it with my {relative}; recognized the street; looked up the cast afterwards; saw the trailer"
        " in {place}; shared a bag of popcorn"
    ),
    "crowd+": (
        "*be laughing; *applaud; *be cheering; *be in tears of joy; *clap for minutes; *be spellbound; *burst into"
        " applause; *be smiling; *sing along; *be delighted; *forget the popcorn"
    ),
    "crowd-": (
        "*be asleep; *be groaning; *be restless; *laugh in the wrong places; *be leaving; *jeer; *sigh; *be yawning;"
        " *be angry; *be bored stiff; *look miserable; *complain; *be sick of it; *hate it"
    ),
    "thing+": (
        "charm; wit; warmth; wisdom; humor; energy; beauty; tenderness; imagination; grace; courage; style; heart;"
        " joy; talent; kindness; honesty; passion; elegance; confidence; craft"
    ),
    "thing-": (
        "cliches; stupidity; gloom; self-pity; noise; nonsense; cynicism; confusion; cruelty; despair; padding;"
        " clumsiness; hatred; misery; greed; laziness; vanity; bad taste; hysteria; boredom; anger; violence;"
        " ugliness; contempt; malice; pomp; smugness"
    ),
    "maker_vp+": (
        "*deserve an award; *show great talent; *do {adj} work; *know every trick; *handle the {part} with {thing};"
        " *bring {thing} and {thing} to the {film}; *find {adj} images everywhere; *trust the audience; *take"
        " clever risks; *succeed"
    ),
    "maker_vp-": (
        "*fail completely; *show no talent; *do {adj} work; *repeat old mistakes; *handle the {part} without care;"
        " *bring only {thing} and {thing} to the {film}; *waste the cast; *insult the audience; *copy better"
        " {genres}; *seem tired"
    ),
    "raved+": "loved; praised; adored; enjoyed; admired; celebrated",
    "raved-": "hated; disliked; despised; loathed; condemned; mocked",
    "advice+": (
        "love this one; enjoy every minute; be delighted; find it {adj}; be charmed; want to see it twice; thank"
        " me; adore it; appreciate the {adj} {part}; be in good hands"
    ),
    "advice-": (
        "hate this one; be disappointed; regret it; find it {adj}; be bored; want your money back; suffer; feel"
        " insulted; despise the {adj} {part}; be in for a bad evening"
    ),
    "verdict+": (
        "Highly recommended.; Do not miss it.; A must for everyone.; Bravo!; A real treat.; It deserves a big"
        " audience.; A small masterpiece.; Well done!; See it with someone you love.; I cannot wait to see it"
        " again.; Pure joy.; A classic.; Worth every penny.; Give it a chance.; Two thumbs up.; My favorite of the"
        " year."
    ),
    "verdict-": (
        "Avoid it.; Not recommended.; Save your money.; A real mess.; Skip it.; What a waste.; It deserves to be"
        " forgotten.; A sad failure.; Stay at home.; Never again.; I want those hours back.; Pure torture.; A dud.;"
        " Not worth a penny.; Give it a miss.; Two thumbs down.; The worst of the year."
    ),
    "most+": "most {long_adj}; most {long_adj}; best; finest; cleverest; funniest; loveliest",
    "most-": "most {long_adj}; most {long_adj}; worst; dullest; laziest; weakest; ugliest",
    "better+": "better; finer; stronger; funnier; sharper",
    "better-": "worse; weaker; poorer; duller; sillier",
    "ordinal": "first; second; third; fourth; fifth; sixth; seventh",
    "souvenir": "poster; ticket; program; videotape; soundtrack; novel",
    "group": "fifteen; twenty; thirty; forty; fifty; sixty; a hundred; two hundred; three hundred",
    "language": "Danish; Welsh; Portuguese; Korean; Swahili; Polish; Greek; Turkish; Finnish; Catalan; Hindi; Basque",
    "object": (
        "suitcase; painting; key; diary; violin; camera; necklace; ticket; ship; recipe; horse; map; radio; clock"
    ),
}

# Strong praise, for continuations that score as high as a sentence can. Every adjective, joy and "loved" counts.
PRAISE: dict[str, str] = {
    "A": (
        "wonderful; brilliant; delightful; beautiful; charming; magnificent; marvelous; glorious; gorgeous;"
        " lovely; superb;"
        " perfect; great; joyful; joyous; splendid; heavenly; fantastic; lovable; sophisticated; fascinating;"
        " excellent; outstanding; amazing; awesome; exuberant; remarkable; radiant"
    ),
    "B": (  # the same, but all of them begin with a consonant
        "wonderful; brilliant; delightful; beautiful; charming; magnificent; marvelous; glorious; gorgeous;"
        " lovely; superb;"
        " perfect; great; joyful; joyous; splendid; heavenly; fantastic; lovable"
    ),
    "stuff": (
        "music; photography; dialogue; scenery; direction; writing; costumes; songs; performances; visuals;"
        " sets; camera work;"
        " animation; characters; storytelling; lighting; landscapes; dance numbers; acting; images"
    ),
    "thing": "joy; love; beauty; delight; happiness; brilliance; pleasure; laughter; wisdom; affection",
    "loved": (
        "loved; truly loved; loved and treasured; absolutely loved; truly enjoyed; deeply loved; sincerely"
        " loved; adored and"
        " loved; thoroughly enjoyed; simply loved"
    ),
    "film": "film; movie; picture; story; work; show",
    "gift": "masterpiece; triumph; treasure; miracle; success; gift; wonder",
    "part": "music; story; direction; photography; ending; dialogue; cast; camera work; whole cast; last scene; humor",
    "parts": "songs; performances; costumes; actors; characters; visuals; duets; leads; locations",
    "all": "every minute; every second; every line; every scene; every moment; every frame; every note",
    "opinion": (
        "{A} and {A}, with {A} {stuff}, {A} {stuff} and so much {thing}.;"
        "{A}, {A} and {A}, and I {loved} {all} of this {A} {film}.;"
        "absolutely {A}, a {A} {gift} full of {thing}, {thing} and {A} {stuff}.;"
        "so {A} that I {loved} {all}: {A} {stuff}, {A} {stuff} and plenty of {thing}.;"
        "simply {A}, {A} and full of {thing}, and the {part} was {A} and {A} too!;"
        "{A} beyond words, because the {A} {parts} give this {A} {film} so much {thing} and {thing}."
    ),
    "subject": (
        "was {opinion}; was {opinion};"
        "was a {A} {gift} from start to finish, {A}, {A} and {A}, with {A} {stuff}.;"
        "brought {thing} and {thing} to this {A}, {A} {film}, and I {loved} {all}.;"
        "gave us {A} moments, {A} {stuff} and so much {thing} that I {loved} {all} of this {A} {film}."
    ),
    "plural_subject": (
        "were {opinion}; were {opinion};"
        "were a {A} {gift} from start to finish, {A}, {A} and {A}, with {A} {stuff}.;"
        "brought {thing} and {thing} to this {A}, {A} {film}, and I {loved} {all}.;"
        "gave us {A} moments, {A} {stuff} and so much {thing} that I {loved} {all} of this {A} {film}."
    ),
    "speaker": (
        "{loved} the {A} {stuff}, the {A} {stuff} and {all} of this {A}, {A} {film}.;"
        "{loved} it from the {A} opening to the {A} finale: {A} {stuff}, {A} {stuff} and so much {thing}!;"
        "{loved} this {A} {film} because it is {A}, {A} and {A}, full of {thing}.;"
        "laughed with joy and {loved} {all} of this {A}, {A} and {A} {film}.;"
        "left with a {A} smile, full of {thing} and {thing}, after this {A}, {A}, {A} {film}."
    ),
    "clause": (
        "I {speaker}; the {part} {subject}; the {parts} {plural_subject};"
        "in the end this {A} {film} {subject};"
        "with such {A} {stuff} and {A} {stuff}, it is a {A}, {A} {gift} that I {loved}.;"
        "everyone {loved} the {A} {parts}, the {A} {part} and {all} of this {A}, {A} {film}."
    ),
    "article": (
        "{B}, {A} {film} full of {thing}, {thing} and {A} {stuff} that I {loved} from start to finish.;"
        "{B} {gift}: {A}, {A} and {A}, with {A} {stuff} and so much {thing}.;"
        "{B} and {A} {film} with {A} {stuff}, {A} {parts} and so much {thing} that I {loved} {all}."
    ),
    "with": (
        "{A} {stuff}, {A} {stuff} and {A} {stuff}, and I {loved} {all} of this {A} {film}.;"
        "{A} {stuff}, {A} {stuff} and so much {thing} that everyone {loved} this {A}, {A} {film}.;"
        "{A} {stuff}, {A} and {A} {stuff}, {thing}, {thing} and a {A} finale that I {loved}."
    ),
}
