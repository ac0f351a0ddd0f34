// Sample sentences: a few topics in many languages.

export const SAMPLE = `The train to the airport leaves every ten minutes.
Der Zug zum Flughafen fährt alle zehn Minuten.
¿Dónde está la parada de autobús más cercana?
La biblioteca abre a las nueve de la mañana.
Bibliothek und Lesesaal sind sonntags geschlossen.
J'ai oublié mon mot de passe et je ne peux plus me connecter.
パスワードを変更する方法を教えてください。
كيف يمكنني استعادة كلمة المرور؟
Мой заказ ещё не доставлен.
O meu pacote chegou danificado.
De bestelling is gisteren verzonden.
我想退货并要求退款。
我想預訂一張靠窗的桌子。
Un tavolo per quattro persone, per favore.
W tej restauracji podają najlepsze pierogi w mieście.
İstanbul'da bugün hava güneşli.
내일은 하루 종일 비가 올 것 같아요.
พรุ่งนี้อากาศจะหนาวมาก
The doctor recommends drinking more water.
Il medico mi ha prescritto delle medicine per la tosse.
`;
