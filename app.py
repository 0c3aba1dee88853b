"""The demo, on this machine or as a Space on the Hub."""

from glcic_hub.demo import launch, make_demo

demo = make_demo()

if __name__ == "__main__":
    launch(demo)
