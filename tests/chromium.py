"""A headless Chromium for the tests of pages."""

import contextlib
import shutil

import pytest

# The contrast of every element with text in it to what lies behind, as WCAG
# counts it: [[ratio, text], …].
CONTRAST = """
const light = color => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(x => {
    const c = x / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = e => {
  const color = getComputedStyle(e).backgroundColor;
  return /, 0\\)$/.test(color) ? behind(e.parentElement) : color;
};
return [...document.querySelectorAll('body *')]
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .filter(e => e.checkVisibility())
  .filter(e => !['style', 'title', 'desc'].includes(e.localName))
  .map(e => {
    const style = getComputedStyle(e);
    const color = e.ownerSVGElement ? style.fill : style.color;
    const [ink, paper] = [color, behind(e)].map(light);
    const ratio = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    return [ratio, e.textContent];
  });
"""


@contextlib.contextmanager
def opened(profile):
  """Start Chromium with an empty profile; skip the test where there is none."""
  webdriver = pytest.importorskip('selenium.webdriver')
  binary = shutil.which('chromium') or shutil.which('chromium-browser')
  driver = shutil.which('chromedriver')
  if not binary or not driver:
    pytest.skip('no chromium or no chromedriver; .ci/run installs them')
  options = webdriver.ChromeOptions()
  options.binary_location = binary
  for flag in (
    'headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
    'disable-background-networking', 'disable-component-update',
    'disable-sync', 'disable-dev-shm-usage', f'user-data-dir={profile}',
    'autoplay-policy=no-user-gesture-required',
  ):  # fmt: skip
    options.add_argument(f'--{flag}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  service = webdriver.ChromeService(executable_path=driver)
  browser = webdriver.Chrome(options=options, service=service)
  try:
    yield browser
  finally:
    browser.quit()


def look(browser, *, theme='light', width=1200, height=900, media='screen'):
  """Set the theme, the size in CSS pixels and the medium."""
  browser.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {
      'media': media,
      'features': [{'name': 'prefers-color-scheme', 'value': theme}],
    },
  )
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {
      'width': width, 'height': height, 'deviceScaleFactor': 1,
      'mobile': False,
    },
  )  # fmt: skip
