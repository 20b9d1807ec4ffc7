import pytest

from marc.memory.question import counts_things, is_about_all, question_stem


@pytest.mark.parametrize(
    ("question", "stem"),
    [
        ("What does he cook first?", "What does he cook first?"),
        ("What does he cook?Options:\nA. rice\nB. fish\n", "What does he cook?"),
        ("What does he cook?\nOption:\n(A) rice\n(B) fish", "What does he cook?"),
        ("What does he cook?\nA. rice\nB. fish\nC. eggs", "What does he cook?"),
        ("What does he cook? A) rice B) fish", "What does he cook?"),
        ("What does he cook? (A) rice (B) fish", "What does he cook?"),
        ("Who wrote plan A. Nobody knows?", "Who wrote plan A. Nobody knows?"),
        ("Which of vitamin A and vitamin B is named?", "Which of vitamin A and vitamin B is named?"),
        ("What options does the menu show?", "What options does the menu show?"),
        ("A. rice\nB. fish", "A. rice\nB. fish"),
    ],
)
def test_question_stem_drops_the_options_only(question, stem):
    assert question_stem(question) == stem


@pytest.mark.parametrize(
    "question",
    [
        "Summarise the video.",
        "Summarize what happens.",
        "Give a summary of this clip",
        "What is this video about?",
        "What is the video mainly about?",
        "What happens in the video?",
        "What is going on in this clip?",
        "What is the main topic of the lecture?",
        "What is the genre of this film?",
        "Describe this video in detail.",
        "Over the whole video, who talks most?",
        "Which colour is seen throughout?",
        "In which order do the events happen?",
        "What is the correct sequence of steps?",
        "Put the scenes into chronological order.",
        "What is the order in which the three actions take place?",
        "How many times does he jump?",
        "How often does the dog bark?",
        "How many scenes are there?",
        "How many different places are visited?",
        "How many signs does the video show?",
        "How many dogs are there in this video?",
        "Is there a sign that says K2?",
        "Which sign is shown first, K2 or L6?",
        "What does he cook last?",
        "Does the teal striped scene come before the navy plain scene?",
        "Which scene comes right after the plum dotted scene?",
        "In which scene is the sign R7?",
        "Which scenes have a dog?",
        "In which part of the video are guests interviewed?",
        "At what point in the film does she leave?",
    ],
)
def test_a_question_about_the_whole_is_told(question):
    assert is_about_all(question)


@pytest.mark.parametrize(
    "question",
    [
        "What does the sign in the teal striped scene say?",
        "What does he do after he opens the door?",
        "What is the man in the video holding?",
        "What is the title of the book on the table?",
        "How many people sit at the table?",
        "What happens in the video store?",
        "What happens when she summons the waiter?",
        "Who wears overalls?",
        "What does the chef order?",
        "Which plot of land is bought?",
        "Which button turns on the light?",
        "Was machen die Leute?",
        "How many objects move in the teal zigzag scene?",
        "In the teal zigzag scene, how many objects move?",
        "Is there a dog in the garden?",
        "What is on the last slide?",
        "Which part of the engine is removed?",
        "What does he point at?",
        "How many cups does she hold when the bell rings?",
    ],
)
def test_a_question_about_a_moment_is_not(question):
    assert not is_about_all(question)


def test_the_answer_options_do_not_count():
    assert not is_about_all("Who speaks?\nA. the man throughout\nB. the woman")


@pytest.mark.parametrize(
    "question",
    [
        "How many stars does the video show?",
        "How many objects move in the teal zigzag scene?",
        "How often does the dog bark?",
        "What is the total number of goals?",
        "Count the cups on the table.",
        "Please count cars.",
        "Please, count the cars.",
        "Can you count the red cars?",
        "What is the total number of the cars?",
        "Number of people in the room?",
        "What is the total count of occurrences of the action?",
        "What is the count of cars?",
        "How frequently does the dog bark?",
        "In the kitchen, how many people are there?\nA. two\nB. three",
    ],
)
def test_a_question_that_counts_is_told(question):
    assert counts_things(question)


@pytest.mark.parametrize(
    "question",
    [
        "What does the sign say?",
        "Who counts the money?",
        "Which count rides the horse?",
        "What is the number of the bus?",
        "Does he count the money?",
        "What number is on his shirt?",
        "In which order do the events happen?",
        "What is said?\nA. how many there are\nB. nothing",
    ],
)
def test_a_question_that_does_not_count_is_not(question):
    assert not counts_things(question)
