package nimbletest

// culture is a pool of names that go together. A name that is not written in Latin letters, or whose letters
// have no plain counterpart, carries its ASCII spelling behind a bar: it is used for addresses of all kinds.
type culture struct {
	given, family []string
	// suffixes are what companies of the place put behind their name.
	suffixes []string
	places   []place
	// dial is the telephone country code.
	dial string
}

// place is a city with a few of its streets.
type place struct {
	city, state, zip, country string
	streets                   []string
}

// cultures are the pools that contacts are drawn from.
var cultures = []culture{
	{
		given:    []string{"Grace", "Oliver", "Amelia", "Harry", "Imogen", "Rhys", "Fiona", "Callum", "Poppy", "Alistair", "Maeve", "Niall", "Harriet", "Duncan", "Beatrice", "Owen"},
		family:   []string{"Whitfield", "Ashworth", "MacLeod", "Pritchard", "O'Sullivan", "Hargreaves", "Kerr", "Bainbridge", "Llewellyn", "Sutherland", "Thorne", "Gallagher", "Penrose", "Brennan", "Fairfax", "Rowntree"},
		suffixes: []string{"Ltd", "plc", "LLP", "& Sons"},
		places: []place{
			{"Leeds", "West Yorkshire", "LS1 4AP", "United Kingdom", []string{"14 Wharf Street", "3 Mill Lane", "88 Kirkgate"}},
			{"Cardiff", "", "CF10 2AF", "United Kingdom", []string{"21 Womanby Street", "5 Quay Row"}},
			{"Dublin", "", "D02 XY45", "Ireland", []string{"9 Fishamble Street", "40 Thomas Lane"}},
		},
		dial: "+44",
	},
	{
		given:    []string{"Madison", "Tyler", "Denise", "Marcus", "Shauna", "Wyatt", "Latoya", "Brandon", "Joanna", "Desmond", "Kaylee", "Raymond", "Alicia", "Trevor", "Monique", "Curtis"},
		family:   []string{"Hollister", "Washington", "McAllister", "Beauchamp", "Whitaker", "Delgado", "Freeman", "Lindqvist-Hayes", "Pruitt", "Carmichael", "Bridges", "Stoddard", "Nakamura", "Rosenthal", "Underwood", "Vance"},
		suffixes: []string{"Inc.", "LLC", "Corp.", "Group"},
		places: []place{
			{"Portland", "OR", "97205", "United States", []string{"1120 SW Alder Street", "77 Burnside Court"}},
			{"Milwaukee", "WI", "53202", "United States", []string{"410 Water Street", "2605 Prospect Avenue"}},
			{"Tucson", "AZ", "85701", "United States", []string{"63 Congress Street", "1801 Speedway Boulevard"}},
		},
		dial: "+1",
	},
	{
		given:    []string{"Lucía", "Mateo", "Ximena", "Andrés", "Valentina", "Joaquín", "Begoña", "Íñigo", "Soledad", "Ramón", "Inés", "Julián", "Rocío", "Tomás", "Itziar", "Emiliano"},
		family:   []string{"Ibáñez", "Quiroga", "Núñez Carrasco", "Zamora", "Villanueva", "Echeverría", "Peñalosa", "Aguirre", "Montoya", "Cárdenas", "Solís", "Urrutia", "Galván", "Pereda", "Ocampo", "Rincón"},
		suffixes: []string{"S.A.", "S.L.", "S.A. de C.V.", "e Hijos"},
		places: []place{
			{"Bilbao", "Bizkaia", "48001", "Spain", []string{"Calle Somera 18", "Alameda Rekalde 31"}},
			{"Guadalajara", "Jalisco", "44100", "Mexico", []string{"Av. Hidalgo 1020", "Calle Morelos 455"}},
			{"Rosario", "Santa Fe", "S2000", "Argentina", []string{"Bv. Oroño 882", "Calle Mitre 1310"}},
		},
		dial: "+34",
	},
	{
		given:    []string{"Léa", "Théo", "Maëlle", "Benoît", "Solène", "Gaël", "Aurélie", "Rémi", "Noémie", "Étienne", "Clémence", "Bastien", "Manon", "Loïc", "Océane", "Yves"},
		family:   []string{"Lefèvre", "Morvan", "Delacroix-Petit", "Chastain", "Gauthier", "Roussel", "Bérenger", "Fontaine", "Le Goff", "Marchand", "Vasseur", "Pelletier", "Tremblay", "Dufresne", "Arnaud", "Coulombe"},
		suffixes: []string{"SARL", "SA", "SAS", "et Fils"},
		places: []place{
			{"Nantes", "", "44000", "France", []string{"12 rue de la Fosse", "7 quai de Turenne"}},
			{"Lyon", "", "69002", "France", []string{"45 rue Mercière", "3 place Ampère"}},
			{"Québec", "QC", "G1R 4S2", "Canada", []string{"88 rue Saint-Paul", "210 Grande Allée"}},
		},
		dial: "+33",
	},
	{
		given:    []string{"Jürgen", "Anneliese", "Matthias", "Frauke", "Sönke", "Käthe", "Dietmar", "Liselotte", "Björn", "Hannelore", "Thorsten", "Svenja", "Ulrich", "Friederike", "Götz", "Marlene"},
		family:   []string{"Größmann", "Weißenfels", "Schäfer", "Krüger", "Böttcher", "Vogelsang", "Hintermeier", "Österreicher", "Lindner", "Jäger", "Reinhardt", "Steinhöfel", "Zöllner", "Baumgart", "Petersen", "Kühn"},
		suffixes: []string{"GmbH", "AG", "KG", "& Co. KG"},
		places: []place{
			{"Bremen", "", "28195", "Germany", []string{"Böttcherstraße 4", "Am Wall 117"}},
			{"Graz", "Steiermark", "8010", "Austria", []string{"Sackstraße 22", "Herrengasse 9"}},
			{"Winterthur", "ZH", "8400", "Switzerland", []string{"Marktgasse 51", "Technikumstrasse 8"}},
		},
		dial: "+49",
	},
	{
		given:    []string{"Chiara", "Lorenzo", "Ginevra", "Niccolò", "Serafina", "Davide", "Benedetta", "Ruggero", "Allegra", "Fabrizio", "Ornella", "Tiziano", "Viola", "Ettore", "Mirella", "Giosuè"},
		family:   []string{"Bellandi", "D'Angelo", "Marchetti", "Santoro", "Quaranta", "De Luca", "Pellegrini", "Zanetti", "Vitale", "Castelnuovo", "Fabbri", "Morandini", "Lo Presti", "Guerra", "Savoldi", "Tosi"},
		suffixes: []string{"S.r.l.", "S.p.A.", "& Figli", "S.n.c."},
		places: []place{
			{"Torino", "TO", "10123", "Italy", []string{"Via Po 33", "Corso Cairoli 6"}},
			{"Bari", "BA", "70122", "Italy", []string{"Via Sparano 101", "Strada Palazzo 12"}},
		},
		dial: "+39",
	},
	{
		given:    []string{"Agnieszka", "Wojciech", "Zofia", "Łukasz", "Małgorzata", "Grzegorz", "Jadwiga", "Paweł", "Božena", "Jiří", "Kateřina", "Ondřej", "Zdeněk", "Šárka", "Tomasz", "Ewa"},
		family:   []string{"Wiśniewska", "Kowalczyk", "Zieliński", "Brzęczyszczykiewicz", "Nováček", "Dvořák", "Śliwa", "Pokorný", "Wróbel", "Jabłoński", "Kučera", "Lis", "Horák", "Mazur", "Černý", "Gołąb"},
		suffixes: []string{"sp. z o.o.", "s.r.o.", "S.A.", "a.s."},
		places: []place{
			{"Gdynia", "", "81-372", "Poland", []string{"ul. Świętojańska 44", "ul. Portowa 9"}},
			{"Brno", "", "602 00", "Czechia", []string{"Kobližná 4", "Údolní 17"}},
		},
		dial: "+48",
	},
	{
		given:    []string{"Юлия|Yuliya", "Андрій|Andriy", "Оксана|Oksana", "Дмитро|Dmytro", "Ганна|Hanna", "Богдан|Bohdan", "Светлана|Svetlana", "Миколай|Mykolai", "Наталія|Nataliya", "Тарас|Taras"},
		family:   []string{"Шевчук|Shevchuk", "Бондаренко|Bondarenko", "Лысенко|Lysenko", "Мельник|Melnyk", "Гончар|Honchar", "Ткаченко|Tkachenko", "Савчук|Savchuk", "Ковалець|Kovalets"},
		suffixes: []string{"TOV", "LLC"},
		places: []place{
			{"Львів", "", "79000", "Ukraine", []string{"вул. Руська 12", "пл. Ринок 31"}},
			{"Одеса", "", "65026", "Ukraine", []string{"вул. Дерибасівська 5"}},
		},
		dial: "+380",
	},
	{
		given:    []string{"Astrid", "Håkon", "Sigrid", "Mårten", "Freja", "Søren", "Åsa", "Bjarne", "Ingrid", "Pekka", "Aino", "Jóhanna", "Gunnar", "Tuuli", "Eirik", "Maja"},
		family:   []string{"Lindström", "Østergaard", "Hämäläinen", "Bjørnstad", "Sørensen", "Åkesson", "Virtanen", "Guðmundsdóttir", "Nygård", "Holm", "Mäkelä", "Dahlgren", "Kjærgaard", "Strand", "Ekblad", "Rasmussen"},
		suffixes: []string{"AB", "A/S", "Oy", "AS"},
		places: []place{
			{"Göteborg", "", "411 04", "Sweden", []string{"Kungsgatan 18", "Packhusplatsen 2"}},
			{"Aarhus", "", "8000", "Denmark", []string{"Vestergade 41", "Åboulevarden 3"}},
			{"Tampere", "", "33100", "Finland", []string{"Hämeenkatu 15"}},
		},
		dial: "+46",
	},
	{
		given:    []string{"Aarav", "Priya", "Rohan", "Ananya", "Vikram", "Lakshmi", "Sanjay", "Meera", "Arjun", "Kavitha", "Imran", "Deepika", "Harpreet", "Nandini", "Suresh", "Zainab"},
		family:   []string{"Raghunathan", "Chatterjee", "Deshpande", "Iyer", "Kapoor", "Nambiar", "Singh Gill", "Bhattacharya", "Patel", "Qureshi", "Venkatesan", "Mehta", "Fernandes", "Joshi", "Reddy", "Khandelwal"},
		suffixes: []string{"Pvt. Ltd.", "Ltd.", "& Bros.", "Industries"},
		places: []place{
			{"Pune", "Maharashtra", "411001", "India", []string{"27 Moledina Road", "6 Koregaon Park Lane 5"}},
			{"Kochi", "Kerala", "682001", "India", []string{"12 Princess Street", "90 Marine Drive"}},
		},
		dial: "+91",
	},
	{
		given:    []string{"美咲|Misaki", "健太|Kenta", "陽菜|Hina", "翔|Sho", "由美子|Yumiko", "拓海|Takumi", "さくら|Sakura", "大輔|Daisuke", "Haruki", "Naoko"},
		family:   []string{"佐藤|Sato", "高橋|Takahashi", "渡辺|Watanabe", "小林|Kobayashi", "山口|Yamaguchi", "松本|Matsumoto", "井上|Inoue", "Hayashi", "Shimizu", "Ishikawa"},
		suffixes: []string{"K.K.", "Co., Ltd.", "G.K."},
		places: []place{
			{"京都市", "京都府", "604-8005", "Japan", []string{"河原町通三条下る 3-5", "烏丸通 120"}},
			{"Sapporo", "Hokkaido", "060-0061", "Japan", []string{"Minami 1-jo Nishi 4-12"}},
		},
		dial: "+81",
	},
	{
		given:    []string{"Wei", "Xiulan", "Jianguo", "Meiling", "Zihan", "志明|Zhiming", "淑芬|Shufen", "Haoran", "Yating", "Jun", "Minh", "Thị Lan|Thi Lan", "Quốc|Quoc", "Hạnh|Hanh"},
		family:   []string{"Zhang", "Ouyang", "Chen", "Lin", "王|Wang", "Huang", "Xu", "Liang", "Guo", "Nguyễn|Nguyen", "Trần|Tran", "Phạm|Pham", "Đặng|Dang", "Zhao"},
		suffixes: []string{"Co., Ltd.", "Holdings", "Trading Co."},
		places: []place{
			{"Hangzhou", "Zhejiang", "310006", "China", []string{"88 Nanshan Road", "15 Yan'an Road"}},
			{"台南市", "", "700", "Taiwan", []string{"中正路 168 號"}},
			{"Đà Nẵng", "", "550000", "Vietnam", []string{"27 Bạch Đằng"}},
		},
		dial: "+86",
	},
	{
		given:    []string{"Chidinma", "Kwame", "Adaeze", "Tunde", "Wanjiru", "Sipho", "Amina", "Kofi", "Ngozi", "Thabo", "Zawadi", "Olúfẹ́mi|Olufemi", "Makena", "Sekou", "Aissatou", "Tendai"},
		family:   []string{"Okafor", "Mensah", "Adébáyò|Adebayo", "Kamau", "Dlamini", "Nwosu", "Diallo", "Mutua", "Asante", "Khumalo", "Eze", "Chikwanha", "Ndiaye", "Boateng", "Otieno", "van der Merwe"},
		suffixes: []string{"Ltd", "Enterprises", "(Pty) Ltd", "Ventures"},
		places: []place{
			{"Enugu", "Enugu State", "400001", "Nigeria", []string{"18 Ogui Road", "4 Zik Avenue"}},
			{"Kumasi", "Ashanti", "", "Ghana", []string{"22 Harper Road"}},
			{"Durban", "KwaZulu-Natal", "4001", "South Africa", []string{"310 Florida Road", "9 Point Road"}},
		},
		dial: "+234",
	},
	{
		given:    []string{"ليلى|Layla", "يوسف|Yousef", "مريم|Maryam", "Karim", "Nadia", "Tariq", "Shirin", "Farhad", "Leyla", "Emre", "Gülşen|Gulsen", "Omar", "Yael", "Noam", "Dalia", "Ilan"},
		family:   []string{"الخطيب|Al-Khatib", "منصور|Mansour", "Haddad", "Rahimi", "Karimi", "Yıldırım|Yildirim", "Öztürk|Ozturk", "Benhaddou", "Ben-Ami", "Shapira", "Nassar", "Tabrizi", "Aksoy", "Mizrahi", "Darwish", "Şahin|Sahin"},
		suffixes: []string{"A.Ş.", "FZ-LLC", "SARL", "Group"},
		places: []place{
			{"Amman", "", "11181", "Jordan", []string{"7 Rainbow Street", "55 Mecca Street"}},
			{"İzmir", "", "35210", "Türkiye", []string{"Kıbrıs Şehitleri Cd. 60"}},
			{"Haifa", "", "3303139", "Israel", []string{"12 Ben Gurion Avenue"}},
		},
		dial: "+962",
	},
	{
		given:    []string{"João", "Beatriz", "Thiago", "Conceição", "Vinícius", "Lourdes", "Caetano", "Marisa", "Gonçalo", "Iracema", "Simão", "Luísa"},
		family:   []string{"Magalhães", "Assunção", "Teixeira", "Brandão", "Figueiredo", "da Conceição", "Guimarães", "Pinheiro", "Vasconcelos", "Leão", "Carvalho", "Simões"},
		suffixes: []string{"Ltda.", "Lda.", "S.A.", "& Filhos"},
		places: []place{
			{"Recife", "PE", "50030-230", "Brazil", []string{"Rua do Bom Jesus 125", "Av. Rio Branco 18"}},
			{"Porto", "", "4050-253", "Portugal", []string{"Rua das Flores 69"}},
		},
		dial: "+351",
	},
	{
		given:    []string{"Mele", "Tāne|Tane", "Aroha", "Sione", "Keola", "Leilani", "Wiremu", "Ana", "Dewi", "Bambang", "Siti", "Rizal", "Maricel", "Jejomar"},
		family:   []string{"Tuimavave", "Ngata", "Kealoha", "Fonoti", "Parata", "Wijaya", "Santoso", "Hidayat", "Bautista", "Macaraeg", "Dela Cruz", "Kahananui"},
		suffixes: []string{"Ltd", "Tbk", "Corp.", "Collective"},
		places: []place{
			{"Dunedin", "", "9016", "New Zealand", []string{"31 Stafford Street", "8 Vogel Street"}},
			{"Yogyakarta", "DIY", "55271", "Indonesia", []string{"Jl. Malioboro 52"}},
			{"Cebu City", "", "6000", "Philippines", []string{"14 Colon Street"}},
		},
		dial: "+64",
	},
}

var (
	trades     = []string{"Marine", "Textiles", "Logistics", "Analytics", "Robotics", "Foods", "Optics", "Instruments", "Ceramics", "Energy", "Software", "Timber", "Publishing", "Diagnostics", "Architects", "Brewing", "Freight", "Seeds", "Acoustics", "Interiors", "Consulting", "Packaging", "Surveying", "Pharma"}
	companyTop = []string{"Northwind", "Blue Heron", "Copperfield", "Lanternfish", "Meridian", "Quartzlake", "Saffron", "Tidewater", "Umber", "Valehurst", "Windrose", "Zephyrine", "Halcyon", "Juniper", "Kestrel", "Obsidian"}
	titles     = []string{"Chief Executive Officer", "Purchasing Manager", "Head of Operations", "Sales Director", "Office Manager", "Senior Engineer", "Marketing Coordinator", "CFO", "Product Owner", "Account Executive", "Founder", "Legal Counsel", "Plant Supervisor", "Research Lead", "IT Administrator", "Procurement Specialist", "Creative Director", "Customer Success Manager", "Controller", "Board Member"}
	tagTexts   = []string{"supplier", "customer", "prospect", "press", "VIP", "newsletter", "trade fair 2023", "partner", "reseller", "do not call", "investor", "alumni", "speaker", "warm lead", "renewal Q3", "beta tester", "référence", "Großkunde", "met in Lisbon", "needs quote", "holiday card", "board", "vendor/logistics", "follow up"}
	aboutLines = []string{
		"Met at the harbour conference; interested in the yearly contract.",
		"Prefers to be called in the morning. Has two warehouses near the ring road and is looking for a third.",
		"Introduced by a former colleague. Asked for references from the food industry before talking about prices.",
		"Decision maker for everything above five thousand; below that, talk to the assistant.",
		"Long-standing customer since the old catalogue; wants printed invoices.",
		"Speaks three languages and collects first editions. Sends \"quick\" mails that are never quick.",
		"Renewal is due in autumn.\nBudget is approved, procurement is slow.",
		"Moved from the Rotterdam office last spring.",
	}
	leadStatuses = []string{"Open", "Contacted", "Qualified", "Unqualified"}
	leadSources  = []string{"Web form", "Referral", "Trade fair", "Cold call", "Partner"}
	userNames    = []string{"Ines Okafor", "Henrik Vale", "Parvati Rao", "Samuel Oduya", "Colette Marchetti"}
	periods      = []string{"7", "14", "30", "60", "90"}
)
