"""What people are called: common names of a mixed country, the commonest first, and the short forms they answer to.

Which person bears which name, and who writes it how, is decided elsewhere.
"""

import numpy as np
import polars as pl

# Commonest first; after a colon the short forms by which the same person may sign.
_FIRST = """
James:Jim,Jimmy Maria Michael:Mike,Mick Robert:Bob,Rob,Bobby John:Jack,Johnny David:Dave William:Bill,Will,Billy Mary:Polly,Molly Jose:Pepe
Jennifer:Jen,Jenny Christopher:Chris,Kit Elizabeth:Liz,Beth,Betty Daniel:Dan,Danny Jessica:Jess Matthew:Matt Sarah:Sally Joseph:Joe,Joey
Ashley:Ash Anthony:Tony Patricia:Pat,Patty,Trish Thomas:Tom,Tommy Linda:Lin Charles:Charlie,Chuck Barbara:Barb,Babs Joshua:Josh Susan:Sue,Susie
Andrew:Andy,Drew Margaret:Peggy,Maggie,Meg Juan Karen Steven:Steve Lisa Richard:Dick,Rick,Rich Nancy:Nan Kevin:Kev Sandra:Sandy Brian Emily:Em
Carlos Michelle:Shelly Luis:Lou Kimberly:Kim Jason:Jay Amanda:Mandy Timothy:Tim Melissa:Mel Eric:Rick Stephanie:Steph Jeffrey:Jeff Rebecca:Becky,Becca
Kenneth:Ken,Kenny Laura Edward:Ed,Eddie,Ted Sharon Ryan Cynthia:Cindy Jacob:Jake Kathleen:Kathy,Kate Nicholas:Nick Amy Gary Angela:Angie
Jonathan:Jon,Jonny Deborah:Deb,Debbie Stephen:Steve,Steph Donna Ronald:Ron,Ronnie Carol Benjamin:Ben,Benny Ruth:Ruthie Samuel:Sam,Sammy Brenda
Gregory:Greg Pamela:Pam Alexander:Alex,Sasha,Xander Nicole:Nicki,Nikki Patrick:Pat,Paddy Katherine:Kate,Katie,Kathy Frank:Frankie Samantha:Sam
Raymond:Ray Christine:Chris,Chrissy Dennis:Denny Catherine:Cathy,Cate Tyler:Ty Virginia:Ginny Aaron:Ron Debra:Deb Jerry Rachel:Rae Miguel:Mike
Janet:Jan Adam Emma:Em Nathan:Nate Carolyn:Carrie Zachary:Zach,Zack Maria-Jose:Majo Henry:Harry,Hank Olivia:Liv,Livvy Douglas:Doug Heather Peter:Pete
Helen:Nell Kyle Diane:Di Noah Julie:Jules Ethan Joyce Jeremy:Jerry Victoria:Vicky,Tori Christian:Chris Kelly Walter:Walt,Wally Christina:Tina,Chris
Keith Lauren:Laurie Austin Joan Roger:Rodge Evelyn:Evie Terry Olga Sean Judith:Judy Gerald:Gerry,Jerry Megan:Meg Carl Cheryl:Cher Antonio:Tony,Toni
Andrea:Andi Dylan Hannah Francisco:Paco,Pancho Martha:Marty Alejandro:Alex Jacqueline:Jackie Jesse:Jess Frances:Fran,Frankie Gabriel:Gabe
Gloria Bryan Ann:Annie Lawrence:Larry Teresa:Terry,Tess Arthur:Art Kathryn:Kathy,Kat Logan Sara Willie:Will Janice:Jan Jordan:Jordy Jean
Albert:Al,Bert Alice:Ali Joe:Joey Madison:Maddie Bruce Doris:Dori Manuel:Manny Abigail:Abby,Gail Roy Julia:Jules Ralph Judy Eugene:Gene Grace:Gracie
Vincent:Vince,Vinny Denise:Dee Russell:Russ Amber Louis:Lou,Louie Marilyn:Mari Philip:Phil Beverly:Bev Bobby:Bob Danielle:Dani Johnny:John
Theresa:Terry,Tess Bradley:Brad Sophia:Sophie Jorge:George Marie Ricardo:Rick,Ricky Diana:Di Eduardo:Eddie,Lalo Brittany:Britt Harold:Harry,Hal Natalie:Nat
Fernando:Nando Isabella:Bella,Izzy Omar Charlotte:Charlie,Lottie Javier:Javi Rose:Rosie Roberto:Beto Alexis:Lexi,Alex Rafael:Rafa Kayla:Kay Oscar:Ozzie
Lori Wei Ling Pedro Tiffany:Tiff Sergio:Checo Alexandra:Alex,Sandra,Lexi Mohammed:Mo Fatima Ahmed Aisha Priya Ravi Ananya:Anu Sanjay Deepak Lakshmi:Lax
Arjun Mei Hiroshi:Hiro Yuki Kenji:Ken Keiko Minh Thuy Linh Huong Duc Tuan Jin Soo-Jin Min-Ji Dmitri:Dima Svetlana:Sveta Ivan:Vanya Natasha:Tasha
Katarina:Kat Tomas:Tom Pavel:Pasha Agnieszka:Aga Piotr:Peter Giulia:Julie Giuseppe:Joe,Beppe Francesca:Fran Marco Luca Ingrid Lars Astrid Bjorn Freya
Sofia:Sofi Mateo:Teo Camila:Cami Diego Valentina:Vale Santiago:Santi Lucia:Lucy Guadalupe:Lupe Ximena:Xime Ignacio:Nacho Rosario:Charo Consuelo:Chelo
Beatriz:Bea Esperanza:Espe Hector Ramon:Moncho Alberto:Beto Enrique:Quique Gael Rocio Amara Emeka Chidi Ngozi Kwame Ama Kofi Abena Imani Malik Jamal
Latoya:Toya Tyrone:Ty Shanice Darnell Keisha DeShawn:Shawn Ayaan Zainab Yusuf:Joe Hassan Leila Khadija Ibrahim:Abe Nadia Samir:Sam Yasmin:Yas Tariq
Nasreen Bilal Dalia Rania Farid Amir Shirin Reza Parisa Cyrus Eitan Miriam:Mimi Ezra Shoshana:Shosh Isaac:Ike Leah Abraham:Abe Naomi Caleb:Cal Zoe Felix
Clara Hugo Theodore:Ted,Theo Josephine:Josie,Jo Maximilian:Max Eleanor:Ellie,Nora Sebastian:Seb,Bas Penelope:Penny Leonard:Leo,Lenny Rosalind:Roz
Augustus:Gus Matilda:Tilly Frederick:Fred,Freddie Winifred:Winnie Bartholomew:Bart Cordelia:Delia Reginald:Reg,Reggie Millicent:Millie Cornelius:Neil
Wilhelmina:Mina Thaddeus:Thad Philippa:Pippa Ambrose Octavia Lysander Seraphina:Fina Evander Calliope:Callie Ignatius:Iggy Thomasina:Tamsin
"""
_LAST = """
Smith Johnson Garcia Williams Brown Jones Rodriguez Miller Martinez Davis Hernandez Lopez Gonzalez Wilson Anderson Thomas Taylor Moore Jackson Martin
Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis Robinson Walker Young Nguyen Allen King Wright Scott Torres Hill Flores Green Adams Nelson
Baker Hall Rivera Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards Collins Reyes Stewart Morris Morales Murphy Cook
Rogers Gutierrez Ortiz Morgan Cooper Peterson Bailey Reed Kelly Howard Ramos Kim Cox Ward Richardson Watson Brooks Chavez Wood James Bennett Gray Mendoza
Ruiz Hughes Price Alvarez Castillo Sanders Patel Myers Long Ross Foster Jimenez Powell Jenkins Perry Russell Sullivan Bell Coleman Butler Henderson Barnes
Gonzales Fisher Vasquez Simmons Romero Jordan Patterson Alexander Hamilton Graham Reynolds Griffin Wallace Moreno West Cole Hayes Bryant Herrera Gibson
Ellis Tran Medina Aguilar Stevens Murray Ford Castro Marshall Owens Harrison Fernandez McDonald Woods Washington Kennedy Wells Vargas Henry Chen Freeman
Webb Tucker Guzman Burns Crawford Olson Simpson Porter Hunter Gordon Mendez Silva Shaw Snyder Mason Dixon Munoz Hunt Hicks Holmes Palmer Wagner Black
Robertson Boyd Rose Stone Salazar Fox Warren Mills Meyer Rice Schmidt Garza Daniels Ferguson Nichols Stephens Soto Weaver Ryan Gardner Payne Grant Dunn
Kelley Spencer Hawkins Arnold Pierce Hansen Peters Santos Hart Bradley Knight Elliott Cunningham Duncan Armstrong Hudson Carroll Lane Riley Andrews
Alvarado Ray Delgado Berry Perkins Hoffman Johnston Matthews Pena Richards Contreras Willis Carpenter Lawrence Sandoval Guerrero George Chapman Rios
Estrada Ortega Watkins Greene Nunez Wheeler Valdez Harper Burke Larson Santiago Maldonado Morrison Franklin Carlson Austin Dominguez Carr Lawson Jacobs
O'Brien Lynch Singh Vega Bishop Montgomery Oliver Jensen Harvey Williamson Gilbert Dean Sims Espinoza Howell Li Wong Reid Hanson Le McCoy Garrett Burton
Fuller Wang Weber Welch Rojas Lucas Marquez Fields Park Yang Little Banks Padilla Day Walsh Bowman Schultz Luna Fowler Mejia Davidson Acosta Brewer May
Holland Juarez Newman Pearson Curtis Cortez Douglas Schneider Joseph Barrett Navarro Figueroa Keller Avila Wade Molina Stanley Hopkins Campos Barnett
Bates Chambers Caldwell Beck Lambert Miranda Byrd Craig Ayala Lowe Frazier Powers Neal Leonard Gregory Carrillo Sutton Fleming Rhodes Shelton Schwartz
Norris Jennings Rodgers Solis Pham Khan Huang Shah Kumar Ali Ahmed Hassan Okafor Diallo Mensah Mbeki Adeyemi Nwosu Abebe Kamara Cohen Levy Goldberg
Friedman Katz Rosenberg Kowalski Nowak Novak Horvath Popov Ivanov Petrov Volkov Kuznetsov Rossi Russo Ferrari Bianchi Romano Esposito DeLuca Larsen
Lindqvist Johansson Nilsson Berg Haugen Virtanen Papadopoulos Nikolaidis Haddad Khoury Nasser Mansour Rahman Hossain Chaudhry Malik Siddiqui Iyer Menon
Nair Reddy Gupta Sharma Banerjee Yamada Tanaka Suzuki Sato Watanabe Nakamura Choi Jung Kang Zhang Liu Zhao Lin Wu Xu Sun Ho Chan Lam Vo Dang Bui Truong
Phan Santoro Abbott Zamora Quintero Villarreal Montoya Trujillo Calderon Velasquez Saavedra Echeverria O'Connor O'Neill O'Sullivan MacDonald McCarthy
McKenzie Fitzgerald Gallagher Doherty Brennan Kavanagh Llewellyn Pritchard Ashworth Thistlewood Featherstone Winterbourne Hollingsworth Throckmorton
Abernathy Bartlebaugh Zimmermann Vandenberg Oyelaran Szczepanski Wojciechowski Krishnamurthy Venkataraman Balasubramanian Tjandrawinata Papandreou
"""
_PAIRS = [entry.partition(":")[::2] for entry in _FIRST.split()]
FIRST_NAMES = tuple(name for name, _ in _PAIRS)
LAST_NAMES = tuple(_LAST.split())
SHORT_FORMS = tuple(tuple(forms.split(",")) if forms else () for _, forms in _PAIRS)  # of each first name


def drawn(rng: np.random.Generator, names: tuple[str, ...], count: int) -> np.ndarray:
    """Places of `count` names: the common ones often, the rare ones rarely (Zipf and Mandelbrot: 1 / (rank + 8))."""
    running = np.cumsum(1.0 / (np.arange(len(names)) + 8.0))
    places = np.searchsorted(running, rng.random(count) * running[-1], side="right")
    return np.asarray(places, np.int16)


def short_forms(rng: np.random.Generator, first: np.ndarray) -> tuple[np.ndarray, pl.Series]:
    """Of the people whose first names these are: who has a short form (places), and one of them each."""
    kept = [place for place, forms in enumerate(SHORT_FORMS) if forms]
    start = np.zeros(len(FIRST_NAMES), np.int64)
    size = np.array([len(forms) for forms in SHORT_FORMS])
    start[kept] = np.r_[0, np.cumsum(size[kept])[:-1]]
    has = np.flatnonzero(size[first])
    which = (rng.random(len(has)) * size[first[has]]).astype(np.int64)
    flat = pl.Series([form for forms in SHORT_FORMS for form in forms])
    return has, flat[start[first[has]] + which]
