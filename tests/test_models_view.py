"""How the tables of models look off a terminal."""

from alignbeam_local.paths import config_file

from .running import run


def test_what_a_user_wrote_is_no_markup_and_stays_one_line() -> None:
    about = "[/b] [red]kept[/red] " + "long " * 100
    file = config_file().with_name("models.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'[profiles.mine]\nabout = "{about}"\ndraft = "smollm2-135m-instruct"\n')
    ran = run("models", "list")
    assert ran.code == 0, ran.err
    (row,) = (line for line in ran.out.splitlines() if line.startswith("mine"))
    assert about.strip() in row
