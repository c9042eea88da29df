"""Make the pictures of docs/annotate.md: the click page in Chromium.

  python docs/make_annotate_pictures.py data/shapes runs/shapes
  python docs/make_annotate_pictures.py --project P

Takes a folder of clips/ and features/ and a model of them, as docs/video.md
makes; the pictures there are of a model on mean colours of 8 frames. Or a
project with segments, for the picture of the review; that there is of
tests/annotate_project_test.py, whose features are colours, too. Needs chromium
and chromedriver, and the extras annotate and test.
"""

import contextlib
import functools
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from PIL import Image
from selenium import webdriver

_PICTURES = pathlib.Path(__file__).parent / 'pictures'
_LOOKS = (  # file, theme, width and height, whether a proposal is open
  ('annotate.png', 'light', 1200, 720, False),
  ('annotate_dark.png', 'dark', 1000, 720, True),
)


@contextlib.contextmanager
def serve(*options):
  """Start the page; yield its address."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'backtal_jax.annotate', '--annotator=A1', '--port=0',
     *options], stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  try:
    yield next(x for x in process.stdout if x.startswith('http')).strip()
  finally:
    process.terminate()
    process.wait()
    process.stdout.close()


@contextlib.contextmanager
def open_chromium(folder):
  """Yield a headless Chromium."""
  options = webdriver.ChromeOptions()
  for flag in (
    'headless', 'no-sandbox', 'disable-gpu', 'no-first-run',
    'disable-background-networking', 'disable-component-update',
    'disable-sync', f'user-data-dir={folder}/profile',
  ):  # fmt: skip
    options.add_argument(f'--{flag}')
  options.binary_location = shutil.which('chromium')
  service = webdriver.ChromeService(shutil.which('chromedriver'))
  browser = webdriver.Chrome(options=options, service=service)
  try:
    yield browser
  finally:
    browser.quit()


def look(browser, theme, width, height):
  """Set the theme and the size."""
  browser.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': theme}]},
  )
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': width, 'height': height, 'deviceScaleFactor': 1,
     'mobile': False},
  )  # fmt: skip


def wait(browser, text, drawn='body'):
  """Wait until the page says and shows something; fail after a minute."""
  end = time.monotonic() + 60
  find = browser.find_elements
  while not (
    re.search(text, said := find('id', 'status')[0].text)
    and find('css selector', drawn)
  ):
    if time.monotonic() > end:
      raise TimeoutError(said)
    time.sleep(0.05)


def main(shapes, run):
  """Click some, then take the pictures."""
  with (
    tempfile.TemporaryDirectory() as folder,
    serve(
      f'--videos={shapes}/clips', f'--clicks={folder}/clicks.csv',
      f'--checkpoint={run}', f'--features={shapes}/features',
    ) as address,
    open_chromium(folder) as browser,
  ):  # fmt: skip
    press = functools.partial(press_keys, browser)
    browser.get(address)
    wait(browser, 'clicks in')
    for keys in ('\ue014', '\ue014\ue014\ue014\ue014'):  # arrows to the right
      press(keys)
      time.sleep(1)
      press('b')
      wait(browser, 'Saved: background')
    browser.find_element('css selector', '#labels input').click()
    wait(browser, 'labels: ')
    press('d')
    wait(browser, 'video done')
    press('\ue014')
    time.sleep(1)
    press('b')
    wait(browser, r'Saved: background click at 0:01\.00$', '#timeline path')
    for name, theme, width, height, asks in _LOOKS:
      look(browser, theme, width, height)
      if asks:
        press('n')
        wait(browser, '', '#marks .proposal')
        press('q')
        wait(browser, 'background, action or skip')
        time.sleep(1.5)
      take(browser, name)


def press_keys(browser, keys):
  """Press keys."""
  webdriver.ActionChains(browser).send_keys(keys).perform()


def take(browser, name):
  """Write a picture of what is seen."""
  image = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
  image.convert('RGB').quantize(256).save(_PICTURES / name, optimize=True)
  print(_PICTURES / name)


def review(project):
  """Review some segments of a copy of a project, then take the picture."""
  with tempfile.TemporaryDirectory() as folder:
    copy = f'{folder}/project'
    shutil.copytree(project, copy)
    with (
      serve(f'--project={copy}', f'--features={copy}/features') as address,
      open_chromium(folder) as browser,
    ):
      look(browser, 'light', 1200, 760)
      browser.get(address)
      wait(browser, 'clicks in')
      press_keys(browser, 'v')
      wait(browser, 'Review', '#segments li')
      press_keys(browser, 'f')
      wait(browser, ' of ')
      press_keys(browser, 'x')  # all of the video
      wait(browser, 'Saved: rejected')
      press_keys(browser, 'a')
      wait(browser, 'Saved: accepted')
      for _ in range(12):  # a picture with the action in it
        press_keys(browser, '.')
      time.sleep(1.5)
      take(browser, 'annotate_review.png')


if __name__ == '__main__':
  if sys.argv[1] == '--project':
    review(sys.argv[2])
  else:
    main(*sys.argv[1:])
