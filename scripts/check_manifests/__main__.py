import sys

from scripts.check_manifests import main

sys.exit(main(sys.argv[1:]))
