#!/usr/bin/env bash
# Fetches Chromium and the libraries that a machine without a desktop lacks from Debian's packages into the user's cache
# folder, once, for the tests of the console's pages. Prints the folder, which has usr/lib/chromium/chromium in it: run it
# with LD_LIBRARY_PATH as tests/it/support/chromium.rs does.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/debian.sh"
debian_program chromium "130 MB" usr/lib/chromium/chromium chromium chromium-common \
    libasound2 libasound2t64 libasyncns0 libatk-bridge2.0-0 libatk-bridge2.0-0t64 libatk1.0-0 libatk1.0-0t64 libatspi2.0-0 \
    libatspi2.0-0t64 libavahi-client3 libavahi-common3 libcairo-gobject2 libcairo2 libcolord2 libcups2 libcups2t64 libdatrie1 \
    libdav1d6 libdav1d7 libdbus-1-3 libdouble-conversion3 libdrm2 libepoxy0 libflac12 libflac12t64 libfontconfig1 \
    libfreetype6 libfribidi0 libgbm1 libgdk-pixbuf-2.0-0 libgraphite2-3 libgtk-3-0 libgtk-3-0t64 libharfbuzz-subset0 \
    libharfbuzz0b libjpeg62-turbo liblcms2-2 libminizip1 libminizip1t64 libmp3lame0 libmpg123-0 libmpg123-0t64 libnspr4 \
    libnss3 libogg0 libopenh264-7 libopenh264-8 libopenjp2-7 libopus0 libpango-1.0-0 libpangocairo-1.0-0 libpangoft2-1.0-0 \
    libpixman-1-0 libpng16-16 libpng16-16t64 libpulse0 libsndfile1 libthai0 libvorbis0a libvorbisenc2 libwayland-client0 \
    libwayland-cursor0 libwayland-egl1 libwayland-server0 libx11-6 libx11-xcb1 libxau6 libxcb-render0 libxcb-shm0 libxcb1 \
    libxcomposite1 libxcursor1 libxdamage1 libxdmcp6 libxext6 libxfixes3 libxi6 libxinerama1 libxkbcommon0 libxnvctrl0 \
    libxrandr2 libxrender1 fonts-dejavu-core
