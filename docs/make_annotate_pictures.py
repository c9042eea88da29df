"""Make the pictures of docs/annotate.md: the click page in Chromium.

  python docs/make_annotate_pictures.py data/shapes runs/shapes

Takes a folder of clips/ and features/ and a model of them, as docs/video.md
makes; the pictures there are of a model on mean colours of 8 frames. Needs
chromium and chromedriver, and the extras annotate and test.
"""

import contextlib
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
def serve(shapes, run, folder):
  """Start the page on the training clips; yield its address."""
  process = subprocess.Popen(
    [sys.executable, '-m', 'backtal_jax.annotate', f'--videos={shapes}/clips',
     f'--clicks={folder}/clicks.csv', '--annotator=A1', '--port=0',
     f'--checkpoint={run}', f'--features={shapes}/features'],
    stdout=subprocess.PIPE, text=True,
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
    serve(shapes, run, folder) as address,
    open_chromium(folder) as browser,
  ):
    press = lambda keys: (
      webdriver.ActionChains(browser).send_keys(keys).perform()
    )
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
      image = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
      image.convert('RGB').quantize(256).save(_PICTURES / name, optimize=True)
      print(_PICTURES / name)


if __name__ == '__main__':
  main(*sys.argv[1:])
