"""The words that decline, language by language: patterns over folded text (`refusals.folded`)."""

import re
from typing import NamedTuple


class Rules(NamedTuple):
    """One language. `declines` matches where an answer says no to the request, `serves` what takes that back.

    `serves` is looked for only behind a match of `declines`: the thing asked, given in spite of it.
    """

    declines: re.Pattern[str]
    serves: re.Pattern[str]


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL)


#: What stays within a sentence.
_IN = r"[^.!?;:\n]"


def _but(conjunction: str, unless: str) -> str:
    """The sentence goes on to what it can give: a part was declined; `unless` begins other offers."""
    return rf"^{_IN}{{0,80}}\b{conjunction} (?!{unless})"


# --- English

_ADVERB = (
    r"(?: (?:really|simply|just|currently|unfortunately|therefore|also|still|truly|respectfully|politely))*"
)
_VERB = (
    r"(?:accept|access|accommodate|advise|aid|answer|assist|book|browse|calculate|carry out|comment|"
    r"complete|comply|compute|"
    r"condone|continue|cooperate|create|deliver|describe|design|develop|disclose|discuss|display|"
    r"do (?:that|this|so|it|anything)|"
    r"draft|encourage|endorse|engage|execute|explain|express|facilitate|fulfill?|generate|give|guide|help|"
    r"honou?r|instruct|know|list|make|name|offer|open|outline|participate|perform|plan|play|predict|"
    r"prepare|proceed|process|produce|"
    r"promote|provide|reply|reproduce|respond|reveal|satisfy|say|search|see|send|share|show|suggest|"
    r"support|take part|teach|tell|translate|view|walk you|write|(?:be |become )?(?:a )?part(?:y)? (?:of|"
    r"to)|"
    r"in good conscience|be able to|be of (?:help|assistance)|recommend)\b"
)
#: Words behind a negated verb with which it says something else: "I can't help but smile".
_IDIOM = (
    r"(?! but\b| \w+ing\b(?<!anything)(?<!something)|(?<=help) (?:it|myself)\b| you (?:enough|how (?:"
    rf"often|much|many|happy|glad|sorry|good|grateful|proud))\b|{_IN}{{0,60}}\benough\b)"
)
_NOT = (
    r"(?:can't|cannot|can not|won't|will not|couldn't|could not|will never|(?:will be )?unable to|"
    r"not able to|"
    r"not going to|not willing to|not (?:allowed|permitted|authori[sz]ed|programmed|designed) to)"
)
_I = rf"\b(?<!if )i(?:'m| am)?{_ADVERB}"
#: The same subject goes on: "I am a text model and can't play music".
_I_AND = rf"\b(?<!if )i\b{_IN}{{0,60}}?\b(?:and|so|but|therefore|thus|hence|or)\b{_ADVERB}"
_RULES = r"(?:guidelines|guidance|polic(?:y|ies)|programming|principles|rules|values|terms|instructions)"
_WRONG = (
    r"\b(?:is|are)(?: an?)?(?: (?:both|very|serious|federal|severe))? "
    r"(?:crime|criminal|illegal|wrong|against the law|unlawful|unethical|immoral|never (?:ok|okay|"
    r"acceptable|"
    r"justified|right)|not (?:ok|okay|acceptable|ethical))\b"
)
_LEAVE_IT = (
    r"\b(?:(?:advise|urge|recommend|encourage) (?:you )?(?:against|not to)|advise you not|discourage|"
    r"you should (?:not|never) (?:do|attempt|try|engage)|please (?:do not|don't|refrain))"
)
_CRIME = (
    r"\b(?:is|are|be|would be)(?: an?| both)? (?:\w+ )?(?:crime|criminal|offen[cs]e|theft|fraud|"
    r"harassment|stalking|abuse|violence|"
    r"against the law|not acceptable|never acceptable|not the answer)\b"
)
#: What nobody asks about but to do it: of other things "It is illegal to …" may be the answer.
_MISDEED = (
    r"(?:attack|assault|blackmail|break into|bribe|counterfeit|cyberbully|dox|extort|forge|fake|hack|harass|"
    r"harm|hurt|hijack|impersonate|injure|kidnap|kill|launder|murder|phish|poison|rape|rob|scam|shoplift|"
    r"smuggle|spy on|stab|stalk|steal|swindle|threaten|torture|traffic|"
    r"(?:build|create|make|manufacture|produce|distribute|sell|buy)(?: an?| your own| any| homemade)? "
    r"(?:bombs?|explosives?|meth\w*|drugs|illegal \w+|weapons?|malware|virus\w*|fake \w+|counterfeit \w+))\b"
)
_UNLAWFUL = r"(?:illegal|unlawful|against the law|a (?:serious |federal )?(?:crime|offen[cs]e))"
#: What is offered in the place of the thing asked.
_OTHER_WAY = (
    r"(?:\bi can instead\b|\binstead of \w+ing\b|\binstead, |\bi (?:would |strongly )?(?:encourage|urge|"
    r"advise) you\b|"
    r"\bplease (?:talk|speak|tell|reach|seek|consider|contact|encourage|call)\b)"
)

ENGLISH = Rules(
    declines=_any(
        rf"{_I} {_NOT}{_ADVERB}(?: and {_NOT}|, in good conscience,)? {_VERB}{_IDIOM}",
        rf"{_I_AND} {_NOT}{_ADVERB} {_VERB}{_IDIOM}",
        rf"{_I} {_NOT}(?: (?:and|or) {_NOT})*\s*(?:$|[.!])",
        rf"\b(?:sorry|apologi[sz]e|apologies|afraid|unfortunately|"
        rf"regret){_IN}{{0,40}}\b{_NOT} {_VERB}{_IDIOM}",
        r"\b(?:sorry|apologi[sz]e|apologies)\b[,.]? (?:but )?(?:no|not? (?:possible|"
        r"allowed))\b(?! (?:problem|worries))",
        rf"^(?:sorry[,.!]* )?(?:but )?{_NOT} {_VERB}{_IDIOM}",
        rf"\bi{_ADVERB} (?:must|have to|need to|will have to|am going to|'m going to|shall|will|"
        rf"would){_ADVERB} "
        r"(?:decline|refuse|reject)\b",
        rf"\bi(?:'m going to| am going to| must| have to){_ADVERB} (?:decline|refuse)\b",
        rf"\bi{_ADVERB} (?:decline|refuse) to\b",
        r"\bi(?:'d| would) (?:rather|prefer) not\b",
        r"\bi prefer not to\b",
        r"\bi(?:'m| am| do|)(?:n't| not) (?:feel )?comfortable\b",
        r"\bi(?:'m| am) not in a position to\b",
        r"\bi (?:don't|do not|cannot|can't) (?:condone|support|promote|encourage|endorse|engage in|"
        r"participate in|provide|offer|assist|help with|write|create|generate)\b",
        r"\bi(?:'m| am)?(?: currently)? (?:don't have|do not have|have no|lack|without)(?: the| any|"
        r" direct)* "
        r"(?:access|ability|capability|permission|way|means|real-time|live)\b",
        r"\b(?:is|are|be|'s)(?: simply| just)?(?: not|n't) (?:something|a (?:request|topic|subject|thing|"
        r"task)) "
        r"(?:that )?i\b",
        r"\b(?:not|n't) (?:be )?(?:appropriate|ethical|possible|responsible|right|acceptable) (?:of|"
        r"for) me to\b",
        r"\b(?:irresponsible|unethical|inappropriate|impossible|wrong|illegal) (?:of|for) me to\b",
        rf"\b(?:against|violates?|contrary to|conflicts? with|outside(?: of)?) my {_RULES}",
        rf"\bmy{_ADVERB}(?: \w+)? {_RULES} (?:prevent|prohibit|forbid|don't|do not|does not|doesn't|"
        rf"restrict)",
        r"\b(?:not|n't) within my\b",
        r"\bi (?:will|'ll)? ?have to (?:pass|stop)\b",
        rf"{_I_AND} (?:don't|do not) have (?:access|the ability|real-time)\b",
        r"\b(?:beyond|outside(?: of)?) (?:what i|my (?:scope|abilit|capabilit))",
        r"\b(?:your|this|that|the) request (?:has been|is|was|must be|cannot be|can't be) "
        r"(?:declined|denied|rejected|refused|fulfilled|processed|completed)\b",
        r"\b(?:information|answer|instructions|guidance|details)\b" + _IN + r"{0,60}"
        r"\b(?:cannot|can't|won't|will not|must not) be (?:shared|provided|given|disclosed|answered)\b",
        r"\blet's (?:talk about|discuss|speak about|turn to|move on to|focus on|chat about) "
        r"(?:something else|another|a different|other)\b",
        r"\b(?:change the (?:subject|topic)|continue this conversation)\b",
        r"^(?:no[,.!] )?(?:absolutely not|certainly not|definitely not|no way)[.!,]",
        r"^no[,.!] i (?:will|can|do|am|would)(?:n't| not|not)\b",
        r"^(?:i'm sorry,? but |sorry,? but |unfortunately,? )?(?:it|this|that)(?: is|'s| would be) "
        r"(?:not (?:appropriate|ethical|right|acceptable)|unethical|inappropriate|immoral|"
        r"illegal and unethical|"
        r"unethical and illegal|never (?:ok|okay|acceptable)) to\b",
        rf"^(?:i'm sorry,? but |sorry,? but |unfortunately,? )?(?:it|that|this)(?: is|'s) {_UNLAWFUL} to "
        rf"{_MISDEED}(?!{_IN}*(?:, so |\b(?:unless|except|without)\b))",
        rf"{_WRONG}[^\n]{{0,160}}{_LEAVE_IT}",
        rf"{_LEAVE_IT}[^\n]{{0,160}}{_WRONG}",
        rf"{_CRIME}.{{0,200}}{_OTHER_WAY}",
    ),
    serves=_any(
        r"\bjust kidding\b",
        r"\bi(?: can| will|'ll)(?: still)? tell you (?:how|what|that)\b",
        r"\b(?:here(?:'s| is)|this is) (?:how|a (?:step|way|general|guide)|the (?:way|recipe|code|answer|"
        r"steps))\b",
        r"\b(?:here are|follow|these are)(?: the| some| a few)?(?: general| basic| simple)? (?:steps|"
        r"instructions|ways to)\b",
        r"\b(?:all right|alright|okay|ok|anyway|fine)(?: then)?[,:] ",
        r"\bbut (?:in general|generally|typically|usually|often|as a rule|most|roughly|about|here's how|"
        r"here is how)\b",
        _but("but", r"i\b|i'|if|please|we\b|let|you\b|feel|there|would|perhaps|maybe|thank|remember")
        + rf"{_IN}{{4}}",
    ),
)  # fmt: skip

# --- German

GERMAN = Rules(
    declines=_any(
        rf"\bich (?:kann|werde|darf|möchte|will|könnte)\b{_IN}{{0,80}}?\b(?:nicht|kein\w*|"
        rf"nichts)\b{_IN}{{0,60}}?"
        r"(?:helfen|unterstützen|beantworten|antworten|geben|bereitstellen|liefern|schreiben|erstellen|"
        r"sagen|"
        r"erfüllen|nachkommen|teilen|anbieten|mitmachen|erklären|nennen|verfassen|tun|öffnen|sehen)\b",
        rf"\b(?:kann|werde|darf|möchte|will) ich\b{_IN}{{0,60}}?\b(?:nicht|kein\w*|nichts)\b{_IN}{{0,60}}?"
        r"(?:helfen|unterstützen|beantworten|antworten|geben|bereitstellen|liefern|schreiben|erstellen|"
        r"sagen|"
        r"erfüllen|nachkommen|teilen|anbieten|mitmachen|erklären|nennen|verfassen|tun|öffnen|sehen)\b",
        rf"\b(?:muss|möchte)\b{_IN}{{0,60}}\b(?:ablehnen|verweigern)\b",
        rf"\bich lehne\b{_IN}{{0,60}}\bab\b",
        r"\bich weigere mich\b",
        rf"\bich bin\b{_IN}{{0,40}}\bnicht (?:in der lage|befugt|berechtigt|dazu da|bereit)\b",
        rf"\bmir\b{_IN}{{0,20}}\bnicht (?:möglich|erlaubt|gestattet)\b",
        rf"\b(?:ich habe|habe ich)\b{_IN}{{0,20}}\bkeinen? (?:zugriff|zugang|möglichkeit)\b",
        r"\b(?:das|dies|so etwas|so was|sowas) (?:mache|tue|schreibe|beantworte|unterstütze) ich nicht\b",
        r"\büber etwas anderes (?:sprechen|reden|unterhalten)\b",
        r"\b(?:gegen|verstößt gegen) meine \w+",
    ),
    serves=_any(
        r"\b(?:hier (?:ist|sind|die)|so geht|und so)\b",
        _but("aber", r"ich\b|wenn|bitte|gern|vielleicht|du kannst|sie können|wir\b"),
    ),
)

# --- French

FRENCH = Rules(
    declines=_any(
        rf"\bje ne (?:peux|veux|vais|pourrai|puis|saurais|dois)\b{_IN}{{0,30}}?\b(?:aider|répondre|"
        rf"assister|fournir|"
        r"donner|écrire|faire|partager|créer|générer|dire|expliquer|accéder|satisfaire|participer|"
        r"proposer)\b",
        r"\bje (?:n'|ne )(?:vous |t'|te |l')?\w+rai pas\b",
        r"\bje refuse\b",
        r"\bje (?:dois|me vois obligée? de)(?: \w+)? (?:décliner|refuser)\b",
        r"\bje préfère(?:rais)? ne pas\b",
        r"\bje (?:suis|serais)\b" + _IN + r"{0,20}\b(?:dans l'incapacité|pas en mesure|pas autorisée?)\b",
        r"\bje ne suis pas (?:en mesure|capable|autorisée?|programmée?)\b",
        r"\bje n'ai pas (?:accès|la possibilité|la capacité)\b",
        r"\bil m'est impossible\b",
        r"\bparlons (?:plutôt )?d'autre chose\b",
        r"\bcontraire à mes \w+",
    ),
    serves=_any(
        r"\b(?:voici|voilà) (?:comment|la|les|une|un|des)\b",
        _but("mais", r"je\b|j'|si\b|vous\b|n'h|peut-être|nous\b"),
    ),
)

# --- Spanish, Italian, Portuguese

SPANISH = Rules(
    declines=_any(
        r"\bno (?:te |le |les |os )?(?:puedo|podré|podría|voy a|quiero|debo|"
        r"pienso)\b(?: \w+)? ?(?:ayudar|cumplir|"
        r"proporcionar|compartir|dar|responder|hacer|escribir|decir|ofrecer|crear|generar|participar|"
        r"explicar|"
        r"asistir|atender|acceder|completar|contestar|facilitar|sustentar|apoyar)\w*",
        r"\bno (?:te|le|les|os) \w+ré\b",
        r"\b(?:debo|tengo que|he de) (?:rechazar|declinar|negarme)\b",
        r"\bme niego\b",
        r"\bno (?:estoy en condiciones|estoy autorizad[oa]|soy capaz)\b",
        r"\bno tengo (?:acceso|la capacidad|la posibilidad)\b",
        r"\bno me (?:es posible|está permitido)\b",
        r"\bprefiero no\b",
        r"\bhablemos de otr[ao]\b",
        r"\bva (?:en )?contra (?:de )?mis \w+",
    ),
    serves=_any(
        r"\b(?:aquí (?:tienes|está|están|va)|estos son los pasos)\b",
        _but("pero", r"puedo|podemos|si\b|estoy|con gusto|quizá|te\b|me\b"),
    ),
)

ITALIAN = Rules(
    declines=_any(
        r"\bnon (?:ti |vi |le )?(?:posso|potrò|potrei|voglio|intendo|devo)\b ?(?:aiutar|fornir|risponder|"
        r"scriver|"
        r"dar|dir|far|condivider|crear|generar|offrir|assister|soddisfar|spiegar|acceder|partecipar)\w*",
        r"(?:^|[.!?,] |\b(?:ma|purtroppo|ia|assistente) )non sono (?:in grado|autorizzat[oa]|capace)\b",
        r"\bdevo (?:rifiutare|declinare|rifiutarmi)\b",
        r"\bmi rifiuto\b",
        r"\bpreferi(?:sco|rei) non\b",
        r"\bnon (?:ti|vi|le) \w+rò\b",
        r"\bnon \w+rò\b",
        r"\bnon ho (?:accesso|la possibilità|la capacità)\b",
        r"\bnon mi è (?:possibile|permesso|consentito)\b",
        r"\bparliamo d'altro\b",
    ),
    serves=_any(
        r"\becco (?:come|i|la|il|le)\b",
        _but("ma", r"posso|se\b|forse|possiamo|sarei|sono"),
    ),
)

PORTUGUESE = Rules(
    declines=_any(
        r"\bnão (?:te |lhe |o |a )?(?:posso|vou|consigo|poderei|poderia|quero|devo)\b ?(?:ajudar|"
        r"fornecer|responder|"
        r"escrever|dar|dizer|fazer|compartilhar|partilhar|criar|gerar|oferecer|atender|cumprir|explicar|"
        r"acessar|"
        r"participar|auxiliar)\w*",
        r"\bnão (?:estou (?:autorizad[oa]|apt[oa]|em (?:condições|posição))|sou capaz)\b",
        r"\b(?:recuso-me|me recuso)\b",
        r"\b(?:devo|tenho (?:de|que)|preciso) (?:recusar|declinar)\b",
        r"\bprefiro não\b",
        r"\bnão tenho (?:acesso|a capacidade|como)\b",
        r"\bnão me é (?:possível|permitido)\b",
        r"\bvamos falar (?:de|sobre) outr[ao]\b",
    ),
    serves=_any(
        r"\baqui (?:está|estão|vai|vão)\b",
        _but("mas", r"posso|se\b|talvez|podemos|estou|ficarei"),
    ),
)

# --- Chinese

CHINESE = Rules(
    declines=_any(
        r"我(?:暂时|目前|现在|真的|也)?(?:不能|无法|不会|不可以|不便|没有?办法|"
        r"没法)[^。！？，]{0,8}?(?:提供|帮助|帮|回答|"
        r"写|协助|给出|告诉|支持|参与|满足|生成|访问|讨论|完成|教|说明|解答|创作)",
        r"(?:抱歉|对不起|遗憾)[^。！？]{0,12}(?:无法|不能|不会|没有?办法|没法)[^。！？，]{0,12}?(?:提供|"
        r"帮助|帮|回答|写|协助|"
        r"给出|告诉|支持|参与|满足|生成|访问|讨论|完成|教)",
        r"我(?:必须|只能|不得不)?拒绝",
        r"(?:换个话题|(?:聊|谈|说)(?:点|些)?别的)",
    ),
    serves=_any(
        r"(?:以下是|步骤如下|方法如下)",
        r"(?:不过|但是?|可是)(?!.{0,3}我|.{0,2}如果)",
    ),
)

LANGUAGES = (ENGLISH, GERMAN, FRENCH, SPANISH, ITALIAN, PORTUGUESE, CHINESE)
