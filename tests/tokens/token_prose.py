"""The same short text in many languages."""

# ruff: noqa: E501, RUF001  wide characters, and letters of other alphabets that look like ours

PROSE = {
    "english": "The harbour was quiet in the early morning. Two fishermen mended their nets while gulls argued about "
    "what the night had left behind, and somewhere behind the warehouses an engine refused to start. By eight o'clock "
    "the ferry would arrive with mail, bread, and the usual handful of visitors who had read about the lighthouse.",
    "german": "Am frühen Morgen war der Hafen still. Zwei Fischer flickten ihre Netze, während die Möwen darüber "
    "stritten, was die Nacht übrig gelassen hatte, und irgendwo hinter den Lagerhäusern wollte ein Motor nicht "
    "anspringen. Um acht Uhr sollte die Fähre kommen, mit Post, Brot und einigen Besuchern.",
    "french": "Le port était calme au petit matin. Deux pêcheurs réparaient leurs filets pendant que les mouettes se "
    "disputaient les restes de la nuit, et quelque part derrière les entrepôts un moteur refusait de démarrer. À huit "
    "heures, le bateau devait arriver avec le courrier, le pain et quelques visiteurs.",
    "spanish": "El puerto estaba tranquilo al amanecer. Dos pescadores remendaban sus redes mientras las gaviotas "
    "discutían por lo que la noche había dejado, y detrás de los almacenes un motor se negaba a arrancar. A las ocho "
    "llegaría el barco con el correo, el pan y algunos visitantes.",
    "polish": "Wczesnym rankiem w porcie było cicho. Dwóch rybaków naprawiało sieci, a mewy kłóciły się o to, co "
    "zostało po nocy. Gdzieś za magazynami silnik nie chciał zapalić. O ósmej miał przypłynąć prom z pocztą, chlebem i "
    "garstką gości, którzy czytali o latarni morskiej.",
    "turkish": "Sabahın erken saatlerinde liman sessizdi. İki balıkçı ağlarını onarırken martılar geceden kalanlar "
    "için kavga ediyordu. Depoların arkasında bir motor çalışmamakta direniyordu. Saat sekizde vapur mektupları, "
    "ekmeği ve deniz fenerini merak eden birkaç ziyaretçiyi getirecekti.",
    "vietnamese": "Sáng sớm, bến cảng rất yên tĩnh. Hai người đánh cá vá lưới trong khi đàn hải âu tranh nhau những "
    "gì còn lại sau một đêm. Đâu đó phía sau nhà kho, một động cơ không chịu nổ máy. Tám giờ, chuyến phà sẽ đến cùng "
    "với thư từ, bánh mì và vài du khách.",
    "russian": "Ранним утром в порту было тихо. Двое рыбаков чинили сети, пока чайки спорили о том, что осталось после "
    "ночи, и где-то за складами не хотел заводиться мотор. В восемь часов должен был прийти паром с почтой, хлебом и "
    "несколькими гостями, которые читали про маяк.",
    "greek": "Νωρίς το πρωί το λιμάνι ήταν ήσυχο. Δύο ψαράδες μπάλωναν τα δίχτυα τους, ενώ οι γλάροι μάλωναν για ό,τι "
    "είχε αφήσει η νύχτα, και κάπου πίσω από τις αποθήκες μια μηχανή δεν έλεγε να πάρει μπρος.",
    "arabic": "كان الميناء هادئا في الصباح الباكر. كان صيادان يصلحان شباكهما بينما كانت النوارس تتشاجر على ما تركه "
    "الليل، وفي مكان ما خلف المخازن رفض محرك أن يعمل. في الساعة الثامنة تصل العبارة ومعها البريد والخبز.",
    "hebrew": "הנמל היה שקט בבוקר המוקדם. שני דייגים תיקנו את הרשתות שלהם בזמן שהשחפים רבו על מה שהלילה השאיר, "
    "ואי שם מאחורי המחסנים מנוע סירב להתניע.",
    "hindi": "सुबह सवेरे बंदरगाह शांत था। दो मछुआरे अपने जाल ठीक कर रहे थे और पक्षी रात के बचे हुए खाने के लिए झगड़ रहे थे। "
    "गोदामों के पीछे एक इंजन चालू होने से इनकार कर रहा था। आठ बजे नाव डाक और रोटी लेकर आने वाली थी।",
    "thai": "ท่าเรือเงียบสงบในตอนเช้าตรู่ ชาวประมงสองคนกำลังซ่อมแหขณะที่นกนางนวลทะเลาะกันเรื่องอาหารที่เหลือจากเมื่อคืน "
    "และที่ไหนสักแห่งหลังโกดังเครื่องยนต์ไม่ยอมทำงาน",
    "chinese": "清晨的港口很安静。两个渔夫在补渔网，海鸥在争抢昨夜剩下的东西，仓库后面有一台发动机怎么也发动不起来。"
    "八点钟，渡船会带来邮件、面包和几位读过灯塔故事的客人。",
    "traditional chinese": "清晨的港口很安靜。兩個漁夫在補漁網，海鷗在爭搶昨夜剩下的東西，倉庫後面有一台發動機怎麼也發動不起來。"
    "八點鐘，渡船會帶來郵件、麵包和幾位讀過燈塔故事的客人。",
    "japanese": "早朝の港は静かだった。二人の漁師が網を直しているあいだ、カモメたちは夜の残り物をめぐって争い、"
    "倉庫の裏ではエンジンがなかなかかからなかった。八時にはフェリーが郵便とパンと数人の客を運んでくる。",
    "korean": "이른 아침 항구는 조용했다. 두 어부가 그물을 고치는 동안 갈매기들은 밤이 남긴 것을 두고 다투었고, "
    "창고 뒤 어딘가에서는 엔진이 좀처럼 걸리지 않았다. 여덟 시에는 배가 우편물과 빵을 싣고 올 것이다.",
}
