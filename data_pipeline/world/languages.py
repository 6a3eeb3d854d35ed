"""Words and short lines in several languages, for on-screen text that is to be translated."""

from __future__ import annotations

LATIN = ("es", "fr", "de", "it")
NAMES = {
    "es": "Spanish",
    "fr": "French",
    "de": "German",
    "it": "Italian",
    "ru": "Russian",
    "el": "Greek",
}

# English: Spanish, French, German, Italian.
_WORDS = """
dog: perro, chien, Hund, cane
cat: gato, chat, Katze, gatto
bird: pájaro, oiseau, Vogel, uccello
fish: pez, poisson, Fisch, pesce
horse: caballo, cheval, Pferd, cavallo
tree: árbol, arbre, Baum, albero
flower: flor, fleur, Blume, fiore
sun: sol, soleil, Sonne, sole
moon: luna, lune, Mond, luna
star: estrella, étoile, Stern, stella
water: agua, eau, Wasser, acqua
fire: fuego, feu, Feuer, fuoco
bread: pan, pain, Brot, pane
milk: leche, lait, Milch, latte
cheese: queso, fromage, Käse, formaggio
apple: manzana, pomme, Apfel, mela
egg: huevo, œuf, Ei, uovo
house: casa, maison, Haus, casa
door: puerta, porte, Tür, porta
window: ventana, fenêtre, Fenster, finestra
table: mesa, table, Tisch, tavolo
chair: silla, chaise, Stuhl, sedia
book: libro, livre, Buch, libro
key: llave, clé, Schlüssel, chiave
clock: reloj, horloge, Uhr, orologio
train: tren, train, Zug, treno
car: coche, voiture, Auto, macchina
ship: barco, bateau, Schiff, nave
street: calle, rue, Straße, strada
city: ciudad, ville, Stadt, città
day: día, jour, Tag, giorno
night: noche, nuit, Nacht, notte
snow: nieve, neige, Schnee, neve
rain: lluvia, pluie, Regen, pioggia
red: rojo, rouge, rot, rosso
green: verde, vert, grün, verde
black: negro, noir, schwarz, nero
one: uno, un, eins, uno
two: dos, deux, zwei, due
three: tres, trois, drei, tre
yes: sí, oui, ja, sì
thanks: gracias, merci, danke, grazie
"""

_LINES = """
Good morning: Buenos días, Bonjour, Guten Morgen, Buongiorno
Good night: Buenas noches, Bonne nuit, Gute Nacht, Buona notte
Thank you: Muchas gracias, Merci bien, Danke schön, Grazie mille
See you soon: Hasta pronto, À bientôt, Bis bald, A presto
Come in: Pasa, Entrez, Komm herein, Entra
Wait here: Espera aquí, Attends ici, Warte hier, Aspetta qui
I am tired: Estoy cansado, Je suis las, Ich bin müde, Sono stanco
I am hungry: Tengo hambre, J'ai faim, Ich habe Hunger, Ho fame
Where is he: Dónde está, Où est-il, Wo ist er, Dov'è lui
It is late: Es tarde, Il est tard, Es ist spät, È tardi
It is cold: Hace frío, Il fait froid, Es ist kalt, Fa freddo
Let us go: Vamos, Allons-y, Gehen wir, Andiamo
I love you: Te quiero, Je t'aime, Ich liebe dich, Ti amo
No problem: No hay problema, Pas de souci, Kein Problem, Nessun problema
Be careful: Ten cuidado, Attention, Sei vorsichtig, Stai attento
Help me: Ayúdame, Aide-moi, Hilf mir, Aiutami
"""

# English: the word in its own script, its romanization.
_SCRIPTS = """
dog: ru собака sobaka, el σκύλος skylos
cat: ru кошка koshka, el γάτα gata
house: ru дом dom, el σπίτι spiti
water: ru вода voda, el νερό nero
sun: ru солнце solntse, el ήλιος ilios
book: ru книга kniga, el βιβλίο vivlio
city: ru город gorod, el πόλη poli
night: ru ночь noch, el νύχτα nychta
bread: ru хлеб khleb, el ψωμί psomi
fish: ru рыба ryba, el ψάρι psari
milk: ru молоко moloko, el γάλα gala
tree: ru дерево derevo, el δέντρο dentro
"""


def _table(text: str) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for row in text.strip().splitlines():
        english, rest = row.split(": ")
        for language, foreign in zip(LATIN, rest.split(", "), strict=True):
            # A word that reads the same in English needs no translation.
            if foreign.casefold() != english.casefold():
                found[language, foreign] = english
    return found


WORDS = _table(_WORDS)
"""(language, word) -> English."""

LINES = _table(_LINES)
"""(language, line) -> English."""

ROMANIZED: dict[tuple[str, str], tuple[str, str]] = {
    (language, word): (roman, english)
    for row in _SCRIPTS.strip().splitlines()
    for english, rest in [row.split(": ")]
    for language, word, roman in (item.split(" ") for item in rest.split(", "))
}
"""(language, word in its own script) -> its romanization, English."""

SCREENS = (
    "Settings",
    "Inbox",
    "Camera",
    "Maps",
    "Music",
    "Calendar",
    "Photos",
    "Notes",
    "Weather",
    "Search",
)
SLIDES = (
    "Agenda",
    "Goals",
    "Results",
    "Budget",
    "Team",
    "Plan",
    "Risks",
    "Costs",
    "Sales",
    "Summary",
)
POINTS = (
    "Open",
    "Save",
    "Send",
    "Share",
    "Edit",
    "Delete",
    "Next",
    "Back",
    "Help",
    "More",
    "New",
    "Done",
)
"""Lines below the title of a slide or app screen."""
