// The same question in the languages of the model, and a pair with another meaning for contrast.
const languages = new Map([
  ["Where can I buy a train ticket?", "en"],
  ["أين يمكنني شراء تذكرة قطار؟", "ar"],
  ["在哪里可以买到火车票？", "zh-Hans"],
  ["在哪裡可以買到火車票？", "zh-Hant"],
  ["Où puis-je acheter un billet de train ?", "fr"],
  ["Wo kann ich ein Zugticket kaufen?", "de"],
  ["Dove posso comprare un biglietto del treno?", "it"],
  ["電車の切符はどこで買えますか？", "ja"],
  ["기차표는 어디에서 살 수 있나요?", "ko"],
  ["Waar kan ik een treinkaartje kopen?", "nl"],
  ["Gdzie mogę kupić bilet na pociąg?", "pl"],
  ["Onde posso comprar uma passagem de trem?", "pt-BR"],
  ["¿Dónde puedo comprar un billete de tren?", "es"],
  ["ฉันจะซื้อตั๋วรถไฟได้ที่ไหน", "th"],
  ["Tren bileti nereden alabilirim?", "tr"],
  ["Где можно купить билет на поезд?", "ru"],
  ["The cat is asleep on the sofa.", "en"],
  ["Die Katze schläft auf dem Sofa.", "de"],
]);

export const exampleTexts = [...languages.keys()];

// The language of an example, for fonts and screen readers; undefined for other texts.
export const languageOf = (text) => languages.get(text);

const names = new Intl.DisplayNames("en", { type: "language" });
// Its name in English; undefined for other texts.
export const languageName = (text) => (languages.has(text) ? names.of(languages.get(text)) : undefined);
