set(SOURCES
@SOURCES@)
zephyr_include_directories(..)
zephyr_library()
list(TRANSFORM SOURCES PREPEND ../)
zephyr_library_sources(${SOURCES})
