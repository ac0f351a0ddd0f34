// The same question in the languages of the model, and a pair with another meaning for contrast.
const QUESTION = [
  ["en", "English", "Where can I buy a train ticket?"],
  ["ar", "Arabic", "أين يمكنني شراء تذكرة قطار؟"],
  ["zh-Hans", "Chinese, simplified", "在哪里可以买到火车票？"],
  ["zh-Hant", "Chinese, traditional", "在哪裡可以買到火車票？"],
  ["fr", "French", "Où puis-je acheter un billet de train ?"],
  ["de", "German", "Wo kann ich eine Zugfahrkarte kaufen?"],
  ["it", "Italian", "Dove posso comprare un biglietto del treno?"],
  ["ja", "Japanese", "電車の切符はどこで買えますか？"],
  ["ko", "Korean", "기차표는 어디에서 살 수 있나요?"],
  ["nl", "Dutch", "Waar kan ik een treinkaartje kopen?"],
  ["pl", "Polish", "Gdzie mogę kupić bilet na pociąg?"],
  ["pt", "Portuguese", "Onde posso comprar uma passagem de trem?"],
  ["es", "Spanish", "¿Dónde puedo comprar un billete de tren?"],
  ["th", "Thai", "ฉันจะซื้อตั๋วรถไฟได้ที่ไหน"],
  ["tr", "Turkish", "Tren biletini nereden alabilirim?"],
  ["ru", "Russian", "Где можно купить билет на поезд?"],
];
const CONTRAST = [
  ["en", "English", "The cat is asleep on the sofa."],
  ["de", "German", "Die Katze schläft auf dem Sofa."],
];

const examples = [...QUESTION, ...CONTRAST];
export const exampleTexts = examples.map(([, , text]) => text);

const languages = new Map(examples.map(([tag, name, text]) => [text, { tag, name }]));
// The language of an example, for fonts and screen readers; undefined for other texts.
export const languageOf = (text) => languages.get(text);
